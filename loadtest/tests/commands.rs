//! The program as an operator runs it: exit statuses, what it writes, limits of the account.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, unused_imports)]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use loadtest::capacity::{Capacity, Step};
use loadtest::report::Report;
use loadtest::scenario::Scenario;
use support::{Host, KEY, SECRET};

/// Runs `loadtest ARGUMENTS` after `before` in a shell.
fn command(host: &Host, before: &str, arguments: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{before}\nexec \"$0\" {arguments}"), env!("CARGO_BIN_EXE_loadtest")])
        .env("LIVEKIT_API_KEY", KEY)
        .env("LIVEKIT_API_SECRET", SECRET)
        .env("URL", &host.url)
        .env("METRICS", &host.metrics)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    shell
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// What the exit status has to be.
fn status(report: &Report) -> i32 {
    match (report.is_valid(), report.holds()) {
        (false, _) => 3,
        (true, true) => 0,
        (true, false) => 1,
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_run_writes_its_reports_and_ends_as_they_say() {
    let host = Host::start(false);
    let folder = std::env::temp_dir().join(format!("loadtest-commands-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let files = format!("cd {}", folder.display());
    // The soft limit is too low for eight participants: it raises that by itself.
    let run = "run --url $URL --relay-metrics $METRICS --rooms 4 --participants 2 --audio --ramp 1s --duration 3s \
               --json a.json --html a.html --junit a.xml";
    let first = command(&host, &format!("{files}; ulimit -S -n 30"), run).output().unwrap();
    let text = said(&first);
    let report: Report = serde_json::from_str(&read(&folder.join("a.json"))).expect(&text);
    assert_eq!((report.joins.joined, report.joins.failed), (8, 0), "{text}");
    assert!(text.contains("   0/8 s ") && !text.contains('\x1b'), "lines where there is no terminal: {text}");
    assert_eq!(first.status.code(), Some(status(&report)), "{text}");
    let relay = report.relay.as_ref().unwrap();
    assert!(relay.cpu_cores.unwrap() > 0.0 && relay.memory.unwrap() > 1e6, "{relay:?}");
    let page = read(&folder.join("a.html"));
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{page:.300}");
    assert!(!page.contains("src=") && !page.contains("<link"), "one file, nothing to fetch");
    assert!(read(&folder.join("a.xml")).contains("<testsuite "));

    let broken = "run --url $URL --rooms 1 --audio --ramp 0s --duration 2s --max-join-p95 0 --json b.json";
    let second = command(&host, &files, broken).output().unwrap();
    let report: Report = serde_json::from_str(&read(&folder.join("b.json"))).unwrap();
    assert!(!report.holds(), "{}", said(&second));
    assert_eq!(second.status.code(), Some(status(&report)), "{}", said(&second));

    let both = command(&host, &files, "compare a.json b.json").output().unwrap();
    assert!(both.status.success() && said(&both).contains("join"), "{}", said(&both));
    let wrong = command(&host, &files, "compare a.json a.html").output().unwrap();
    assert!(wrong.status.code() == Some(2) && said(&wrong).contains("is no report"), "{}", said(&wrong));
    std::fs::write(folder.join("search.json"), "{\"scenario\": \"rooms\", \"steps\": []}").unwrap();
    let wrong = command(&host, &files, "compare search.json a.json").output().unwrap();
    let why = "search.json is no report of `loadtest run --json`";
    assert!(wrong.status.code() == Some(2) && said(&wrong).contains(why), "{}", said(&wrong));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_run_ends_with_status_2_and_says_why() {
    let host = Host::start(false);
    for (before, arguments, why) in [
        (
            "ulimit -n 100",
            "run --url $URL --audio",
            "2 participants need 206 open files, and this account may have 100: raise",
        ),
        ("", "run --url https://example.org --audio", "begins with neither ws:// nor wss://"),
        (
            "",
            "run --url $URL --scenario nothing",
            "nothing is neither a file nor one of the ready scenarios (one-to-one",
        ),
        ("", "run --audio", "--url is missing"),
        ("unset LIVEKIT_API_KEY", "run --url $URL --audio", "--api-key is missing (or LIVEKIT_API_KEY)"),
        (
            "export LIVEKIT_API_SECRET=",
            "capacity --url $URL",
            "--api-secret is missing (or LIVEKIT_API_SECRET)",
        ),
        ("", "run --url $URL --audio --json /no/where.json", "cannot write /no/where.json"),
        ("", "capacity --url $URL --html /no/where.html", "cannot write /no/where.html"),
        ("", "run --url ws://no-such-host.invalid --audio", "no-such-host.invalid is not known to DNS"),
        ("", "run --url wss://localhost:9 --ca /nothing --audio", "cannot read /nothing"),
        ("", "run --url $URL --audio --relay-pid 4194305", "there is no process 4194305"),
        ("", "run --url $URL --audio --relay-pid me", "invalid value 'me' for '--relay-pid <PID>'"),
        ("", "run --url $URL --audio --relay-metrics nonsense", "name the relay's own page of metrics"),
        ("", "run --url ws://127.0.0.1:99999 --audio", "is none of 1 to 65535"),
        ("", "run --url ws://::1:7880 --audio", "an IPv6 address in brackets"),
        ("", "run --url $URL --audio --local 192.0.2.1", "192.0.2.1 is not an address of this machine"),
        (
            "",
            "run --url $URL --rooms 100000 --participants 100000",
            "10000000000 participants are more than one run takes",
        ),
        ("", "run --url $URL --rooms 0", "there are no participants"),
        ("", "run --url $URL --video 721p", "721p is none of 180p, 360p, 720p, 1080p"),
        (
            "",
            "run --url $URL --audio --agent 127.0.0.1:9 --agent-secret 0123456789abcdef",
            "does `loadtest agent --listen 127.0.0.1:9` run there?",
        ),
        ("", "run --url $URL --audio --agent 127.0.0.1:9", "--agent-secret <SECRET>"),
        ("", "agent --listen 127.0.0.1:0 --agent-secret short", "fewer than 16 characters"),
    ] {
        let output = command(&host, before, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", said(&output));
        assert!(said(&output).contains(why), "{arguments}: {}", said(&output));
    }
}

#[test]
fn what_is_wrong_with_a_scenarios_file_is_said_with_its_line() {
    let folder = std::env::temp_dir().join(format!("loadtest-scenarios-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let whole = "duration = \"5s\"\n[[rooms]]\ncount = 1\n[[rooms.roles]]\ncount = 2\naudio = true\n";
    let file = folder.join("mine.toml");
    for (text, says) in [
        (
            whole.replace("audio", "audoi"),
            &["mine.toml is no scenario", "line 6", "unknown field `audoi`"][..],
        ),
        (whole.replace("5s", "5 parsecs"), &["line 1", "5 parsecs is no length of time: write 250ms, 60s"]),
        (whole.replace("count = 2", "count = -2"), &["line 5", "-2"]),
        (whole.replace("audio = true", "video = \"721p\""), &["line 6", "expected one of `180p`"]),
        (whole.replace("[[rooms.roles]]", "[[rooms.roles"), &["line 4", "mine.toml is no scenario"]),
        (whole.replace("audio = true", "muted = 3.0"), &["muted = 3 is no share of 0 to 1"]),
        ("duration = \"5s\"".to_owned(), &["missing field `rooms`"]),
    ] {
        std::fs::write(&file, &text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["run", "--print-scenario", "--scenario"])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {}", said(&output));
        assert!(says.iter().all(|part| said(&output).contains(part)), "{text}: {}", said(&output));
    }
    std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_loadtest")).args(["run", "--scenario"]).arg(&file).output().unwrap();
    assert!(output.status.code() == Some(2) && said(&output).contains("cannot read"), "{}", said(&output));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn scenarios_are_listed_and_printed_without_a_server() {
    for with_key in [true, false] {
        let said = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
            command.args(arguments).env_remove("LIVEKIT_API_KEY").env_remove("LIVEKIT_API_SECRET");
            if with_key {
                command.env("LIVEKIT_API_KEY", KEY).env("LIVEKIT_API_SECRET", SECRET);
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", said(&output));
            said(&output)
        };
        let names = said(&["run", "--list-scenarios"]);
        for name in [
            "one-to-one",
            "family",
            "case-conference",
            "group-therapy",
            "webinar",
            "join-storm",
            "churn",
            "flaky-links",
        ] {
            assert!(names.contains(name), "{names}");
        }
        let webinar = said(&["run", "--scenario", "webinar", "--print-scenario"]);
        let scenario: Scenario = toml::from_str(&webinar).unwrap();
        assert_eq!(scenario.participants(), 1001, "{webinar}");
    }
}

#[test]
fn an_interrupted_run_is_not_valid() {
    let host = Host::start(false);
    let running = "run --url $URL --rooms 1 --audio --ramp 0s --duration 60s";
    let child = command(&host, "", running).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(6));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("INVALID the run was interrupted"), "{}", said(&output));
}

#[test]
fn a_tester_that_stood_still_says_so_and_is_not_believed() {
    let host = Host::start(false);
    // The window begins 3.3 s after the start: all of it, its end, its beginning.
    for (duration, from, to) in [("2s", 2_500, 7_000), ("4s", 5_000, 9_000), ("6s", 2_500, 5_000)] {
        let running = format!("run --url $URL --rooms 1 --audio --ramp 0s --duration {duration} --quiet");
        let child = command(&host, "", &running).spawn().unwrap();
        let signal = |name: &str| {
            let kill = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
            assert!(kill.success());
        };
        std::thread::sleep(Duration::from_millis(from));
        signal("-STOP");
        std::thread::sleep(Duration::from_millis(to - from));
        signal("-CONT");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{duration}: {}", said(&output));
        assert!(
            said(&output).contains("INVALID the tester stood still for"),
            "{duration}: {}",
            said(&output)
        );
    }
}

#[test]
fn on_a_terminal_one_line_is_drawn_over_and_gone_at_the_end() {
    let host = Host::start(false);
    let run = format!("{} run --url $URL --audio --ramp 0s --duration 2s", env!("CARGO_BIN_EXE_loadtest"));
    // `script` gives it a terminal for all of its output.
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &format!("stty cols 40; {run}"), "/dev/null"])
        .env("LIVEKIT_API_KEY", KEY)
        .env("LIVEKIT_API_SECRET", SECRET)
        .env("URL", &host.url)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = said(&output);
    let (view, summary) = text.split_once("rooms: 1 rooms").expect(&text);
    let drawn = view.matches("\r\x1b[2K\x1b[?7l[").count();
    assert!(drawn >= 3 && view.matches("\x1b[?7h").count() == drawn, "{drawn}: {text:?}");
    // Nothing of it is left, and it has never gone on in the next line.
    assert!(view.trim_end().ends_with("\r\x1b[2K") && view.matches('\n').count() <= 1, "{view:?}");
    assert!(!summary.contains('\x1b') && summary.contains("frames received"), "{summary}");
}

#[test]
fn a_search_says_what_was_found_and_ends_as_it_says() {
    let host = Host::start(false);
    let folder = std::env::temp_dir().join(format!("loadtest-search-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let search = "capacity --url $URL --relay-metrics $METRICS --audio --ramp 0s --duration 1s --pause 100ms --quiet --json c.json \
                  --html c.html";
    let run = |more: &str| {
        let before = format!("cd {}; ulimit -n 209", folder.display());
        let output = command(&host, &before, &format!("{search} {more}")).output().unwrap();
        let text = said(&output);
        let found: Capacity = serde_json::from_str(&read(&folder.join("c.json"))).expect(&text);
        assert!(read(&folder.join("c.html")).contains("<h3>Capacity: delay p99</h3>"));
        (output.status.code(), text, found)
    };
    // On a machine that is too busy for a valid run of two, again and again, nothing can be said, and that is what it has to say.
    let (nothing, none) = ("no size was tried in a valid run", "not even the smallest size held");
    let counted =
        |found: &Capacity| found.steps.iter().filter(|s| s.counts()).cloned().collect::<Vec<Step>>();
    let valid = |found: &Capacity| counted(found).iter().any(|s| s.invalid.is_empty());
    // Two in the first room; the limit of open files lets three in.
    let (status, text, found) = run("--participants 2 --start 1 --max 4 --max-delay-p99 10000");
    if found.carries().is_some() {
        assert_eq!(status, Some(3), "{text}");
        assert_eq!(counted(&found).iter().map(|s| s.size).collect::<Vec<_>>(), [1, 2], "{text}");
        assert!(text.contains("not the relay's at size 2: 4 participants need 212 open files"), "{text}");
        assert!(text.contains("carries at least 2 participants"), "{text}");
    } else {
        let (expected, says) = if valid(&found) { (1, none) } else { (3, nothing) };
        assert!(status == Some(expected) && text.contains(says), "{text}");
    }
    let (status, text, found) = run("--participants 2 --max 1 --max-join-p95 0");
    let (expected, says) = if valid(&found) { (1, none) } else { (3, nothing) };
    assert!(status == Some(expected) && text.contains(says), "{text}");
    // What broke was run again before it counted.
    let broken = found.steps.iter().filter(|s| s.invalid.is_empty()).count();
    assert!(
        expected == 3
            || (broken == 2 && text.contains("again   size 1 was run again: broke once: join time p95")),
        "{text}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
