//! Something that listens where a signalling service should, and is none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Answers each connection with the same bytes; with none it takes what comes and stays silent.
pub struct Fake {
    pub address: SocketAddr,
}

impl Fake {
    /// Its thread ends with the test's process.
    pub fn start(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answer.clone();
                std::thread::spawn(move || talk(stream, &answer));
            }
        });
        Self { address }
    }

    /// A page of HTML with a status, and more headers where they are given, each with its line's end.
    pub fn page(status: &str, headers: &str) -> Self {
        let body = "<!doctype html><title>Welcome</title><h1>It works</h1>";
        let length = body.len();
        Self::start(format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n{body}"
        ))
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

fn talk(mut stream: TcpStream, answer: &str) {
    let mut buffer = [0; 4096];
    // Whoever speaks TLS has said hello by then, too.
    let _ = stream.read(&mut buffer);
    if answer.is_empty() {
        std::thread::sleep(Duration::from_secs(60));
    }
    let _ = stream.write_all(answer.as_bytes());
}
