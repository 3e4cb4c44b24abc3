use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::test_signer::{Signer, key_set};
use super::*;
use crate::token::{Claims, Secret, TokenError};

const NOW: u64 = 1_800_000_000;
const WAIT: Duration = Duration::from_secs(10);

struct KeyFile(PathBuf);

impl KeyFile {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("curtain-jwks-{:016x}", rand::random::<u64>()));
        let file = Self(path);
        file.write(text);
        file
    }

    /// At once, as a careful operator does, so that no reader sees half a set.
    fn write(&self, text: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn from_file(path: &Path) -> JwksConfig {
    JwksConfig { file: Some(path.to_owned()), url: None, issuer: None, audience: None, refresh_seconds: 300 }
}

fn from_url(url: String) -> JwksConfig {
    JwksConfig { file: None, url: Some(url), ..from_file(Path::new("")) }
}

fn no_api_keys() -> Arc<Verifier> {
    Arc::new(Verifier::new([]).unwrap())
}

fn api_key() -> Arc<Verifier> {
    let secret = Secret::new("0123456789abcdef0123456789abcdef");
    Arc::new(Verifier::new([("devkey".to_owned(), secret)]).unwrap())
}

fn token(signer: &Signer) -> String {
    let video = json!({"roomJoin": true, "room": "visit"});
    signer.token(&json!({"iss": "idp", "sub": "jane", "aud": "curtain", "exp": NOW + 600, "video": video}))
}

fn verify(verifier: &Verifier, signer: &Signer) -> Result<Claims, TokenError> {
    verifier.verify(&token(signer), NOW)
}

/// Waits until the token is accepted without asking more often than a patient client would.
async fn accepted(verifier: &Verifier, signer: &Signer) {
    let soon = async {
        while verify(verifier, signer).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, soon).await.expect("accepted in time");
}

#[tokio::test]
async fn tokens_by_the_files_keys_are_accepted() {
    let (ed, ec, other) = (Signer::ed25519("ed"), Signer::p256("ec"), Signer::ed25519("other"));
    let file = KeyFile::new(&key_set(&[&ed, &ec]));
    let config = JwksConfig {
        issuer: Some("idp".to_owned()),
        audience: Some("curtain".to_owned()),
        ..from_file(&file.0)
    };
    let verifier = no_api_keys();
    let _work = JwksSource::new(config.clone()).unwrap().follow(verifier.clone(), || ()).await.unwrap();
    for signer in [&ed, &ec] {
        let claims = verify(&verifier, signer).unwrap();
        assert!(claims.permits_join("visit") && !claims.by_api_key);
    }
    assert_eq!(verify(&verifier, &other), Err(TokenError::UnknownKey));
    assert_eq!(verify(&verifier, &Signer::ed25519("ed")), Err(TokenError::Signature));

    let config = JwksConfig { issuer: Some("another".to_owned()), ..config };
    let _work = JwksSource::new(config).unwrap().follow(verifier.clone(), || ()).await.unwrap();
    assert_eq!(verify(&verifier, &ed), Err(TokenError::WrongParty));
}

#[tokio::test]
async fn a_changed_file_is_picked_up_in_time_and_a_broken_one_is_not() {
    let (old, new) = (Signer::ed25519("old"), Signer::p256("new"));
    let file = KeyFile::new(&key_set(&[&old]));
    let (verifier, failures) = (no_api_keys(), Arc::new(AtomicUsize::new(0)));
    let mut source = JwksSource::new(from_file(&file.0)).unwrap();
    source.schedule.refresh = Duration::from_millis(20);
    // Readings by the clock only.
    source.schedule.early_from += Duration::from_secs(3600);
    let count = failures.clone();
    let work = source.follow(verifier.clone(), move || {
        let _ = count.fetch_add(1, Ordering::Relaxed);
    });
    let work = tokio::spawn(work.await.unwrap());

    file.write("{\"keys\": []}");
    let noticed = async {
        while failures.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WAIT, noticed).await.expect("failures in time");
    assert!(verify(&verifier, &old).is_ok(), "the old set stays");

    file.write(&key_set(&[&new]));
    accepted(&verifier, &new).await;
    assert_eq!(verify(&verifier, &old), Err(TokenError::UnknownKey));
    work.abort();
}

#[tokio::test]
async fn an_unknown_key_causes_an_early_reading_once_a_minute() {
    let signers = [Signer::ed25519("1"), Signer::ed25519("2"), Signer::ed25519("3")];
    let file = KeyFile::new(&key_set(&[&signers[0]]));
    let verifier = no_api_keys();
    let source = JwksSource::new(from_file(&file.0)).unwrap();
    let work = tokio::spawn(source.follow(verifier.clone(), || ()).await.unwrap());

    file.write(&key_set(&[&signers[1]]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(verify(&verifier, &signers[0]).is_ok(), "nothing asked for a reading");
    assert_eq!(verify(&verifier, &signers[1]), Err(TokenError::UnknownKey));
    accepted(&verifier, &signers[1]).await;

    file.write(&key_set(&[&signers[2]]));
    for _ in 0..20 {
        assert_eq!(verify(&verifier, &signers[2]), Err(TokenError::UnknownKey));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    work.abort();
}

#[test]
fn the_schedule_keeps_its_distances() {
    let start = Instant::now();
    let mut schedule = Schedule::new(Duration::from_secs(300), start);
    let at = |s| start + Duration::from_secs(s);
    assert_eq!((schedule.next, schedule.early_from), (at(0), at(0)));
    schedule.done(true, at(1));
    assert_eq!((schedule.next, schedule.early_from), (at(301), at(0)));
    schedule.early(at(2));
    schedule.done(false, at(3));
    assert_eq!((schedule.next, schedule.early_from), (at(33), at(62)));
    // A reading by the clock takes nothing from the early ones.
    schedule.done(true, at(33));
    assert_eq!((schedule.next, schedule.early_from), (at(333), at(62)));

    let mut often = Schedule::new(Duration::from_secs(10), start);
    often.done(false, start);
    assert_eq!(often.next, at(10));
}

/// Serves `document` on loopback and counts the requests.
async fn serve(document: Arc<Mutex<String>>) -> (String, Arc<AtomicUsize>, tokio::task::AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            counter.fetch_add(1, Ordering::Relaxed);
            let body = document.lock().unwrap().clone();
            let head = match body.is_empty() {
                true => "HTTP/1.1 503 Service Unavailable",
                false => "HTTP/1.1 200 OK",
            };
            let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, requests, task.abort_handle())
}

#[tokio::test]
async fn a_url_is_read_and_its_rotation_picked_up() {
    let (old, new) = (Signer::p256("old"), Signer::ed25519("new"));
    let document = Arc::new(Mutex::new(key_set(&[&old])));
    let (url, requests, server) = serve(document.clone()).await;
    let verifier = no_api_keys();
    let source = JwksSource::new(from_url(url)).unwrap();
    let work = tokio::spawn(source.follow(verifier.clone(), || ()).await.unwrap());
    assert!(verify(&verifier, &old).is_ok());
    assert_eq!(requests.load(Ordering::Relaxed), 1);

    *document.lock().unwrap() = key_set(&[&old, &new]);
    accepted(&verifier, &new).await;
    assert!(verify(&verifier, &old).is_ok());
    assert!(verify(&verifier, &Signer::ed25519("none")).is_err());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(requests.load(Ordering::Relaxed), 2, "one more reading for all the unknown keys");
    work.abort();
    server.abort();
}

#[tokio::test]
async fn an_unreadable_set_is_fatal_only_without_api_keys() {
    let key = Signer::ed25519("k");
    let document = Arc::new(Mutex::new(String::new()));
    let (url, _, server) = serve(document.clone()).await;
    let missing = Path::new("/nonexistent/jwks.json");
    for config in [from_file(missing), from_url(url.clone())] {
        let source = JwksSource::new(config).unwrap();
        let error = source.follow(no_api_keys(), || ()).await.err().expect("fatal");
        assert!(
            matches!(error, SourceError::File { .. } | SourceError::Fetch(FetchError::Status(_))),
            "{error}"
        );
    }
    let failures = Arc::new(AtomicUsize::new(0));
    let (verifier, count) = (api_key(), failures.clone());
    let source = JwksSource::new(from_url(url)).unwrap();
    let work = source.follow(verifier.clone(), move || {
        let _ = count.fetch_add(1, Ordering::Relaxed);
    });
    let work = tokio::spawn(work.await.unwrap());
    assert_eq!(failures.load(Ordering::Relaxed), 1);
    // Without any set a key is as unknown as in a set that lacks it.
    *document.lock().unwrap() = key_set(&[&key]);
    accepted(&verifier, &key).await;
    work.abort();
    server.abort();
}

#[tokio::test]
async fn contradictions_and_oversize_are_named() {
    let nowhere = JwksConfig { file: None, ..from_file(Path::new("")) };
    assert!(matches!(nowhere.check(), Err(SourceError::Place)));
    let both = JwksConfig { url: Some("https://localhost/".to_owned()), ..from_file(Path::new("x")) };
    assert!(matches!(JwksSource::new(both), Err(SourceError::Place)));
    let often = JwksConfig { refresh_seconds: MIN_REFRESH - 1, ..from_file(Path::new("x")) };
    assert!(matches!(JwksSource::new(often), Err(SourceError::Refresh)));
    let clear = from_url("http://idp.example/".to_owned());
    assert!(matches!(JwksSource::new(clear), Err(SourceError::Fetch(FetchError::Insecure))));

    let set = key_set(&[&Signer::ed25519("k")]);
    let file = KeyFile::new(&format!("{set}{}", " ".repeat(MAX_JWKS_SIZE)));
    let error = JwksSource::new(from_file(&file.0)).unwrap().follow(no_api_keys(), || ()).await.err();
    assert!(matches!(error, Some(SourceError::Invalid(JwksError::TooLarge))));
}
