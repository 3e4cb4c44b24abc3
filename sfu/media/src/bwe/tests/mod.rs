//! The estimator in closed loop with simulated links. `cargo test -p sfu-media bwe:: -- --nocapture` prints the figures.

mod link;

use std::time::Duration;

use link::{Flow, Path, Run, Source, VIDEO, run};

const PLENTY: f64 = 20e6;

fn sources() -> [(&'static str, Source); 2] {
    [("smooth", Source::Smooth), ("video", VIDEO)]
}

fn one(path: &Path, source: Source, seconds: usize) -> Run {
    run(path, vec![Flow::new(source, |_| PLENTY)], seconds)
}

fn show(case: &str, run: &Run, from: usize, to: usize) {
    println!(
        "{case:<44} utilisation {:5.1} %  queue p50 {:4.0} p95 {:4.0} max {:4.0} ms  loss {:4.1} %  rtt {:?}",
        100.0 * run.utilisation(from, to),
        run.queue_ms(0.5),
        run.queue_ms(0.95),
        run.queue_ms(1.0),
        100.0 * run.flows[0].loss,
        run.flows[0].rtt.unwrap_or_default(),
    );
}

fn trace(run: &Run, from: f64, to: f64, every: f64) {
    if std::env::var_os("BWE_TRACE").is_none() {
        return;
    }
    let mut t = from;
    while t < to {
        let targets: Vec<_> = run.flows.iter().map(|f| f.targets[(t * 100.0) as usize] / 1000).collect();
        println!("  {t:6.2} s  {targets:?} kbit/s  queue {:4.0} ms", run.queue_at(t));
        t += every;
    }
}

#[test]
fn steady_state_uses_the_link() {
    for (name, source) in sources() {
        for rate in [500e3, 1e6, 3e6, 10e6] {
            for rtt in [20, 100] {
                let run = one(&Path::new(rate, rtt), source, 60);
                assert!(run.utilisation(15, 60) > 0.8);
                show(&format!("steady {} kbit/s rtt {rtt} {name}", rate / 1e3), &run, 15, 60);
                trace(&run, 0.0, 30.0, 0.25);
            }
        }
    }
}

#[test]
fn a_step_down_and_up_again() {
    for (name, source) in sources() {
        for rtt in [20, 50, 100, 200] {
            let path = Path {
                rate: Box::new(|t| if (20.0..40.0).contains(&t) { 500e3 } else { 3e6 }),
                queue: Duration::from_secs(2),
                queue_rate: 3e6,
                ..Path::new(3e6, rtt)
            };
            let run = one(&path, source, 60);
            assert!(run.queue_ms(0.95) < 350.0);
            assert!(run.utilisation(50, 60) > 0.6);
            show(&format!("step 3 M, 500 k, 3 M rtt {rtt} {name}"), &run, 0, 60);
            trace(&run, 19.8, 30.0, 0.1);
            trace(&run, 30.0, 60.0, 0.5);
        }
    }
}

#[test]
fn random_loss() {
    for (name, source) in sources() {
        for rtt in [20, 100, 400] {
            for loss in [0.01, 0.05, 0.1, 0.2] {
                let run = one(&Path { loss, ..Path::new(3e6, rtt) }, source, 60);
                assert!(run.utilisation(20, 60) > 0.7);
                show(&format!("3 M loss {loss} rtt {rtt} {name}"), &run, 20, 60);
                trace(&run, 0.0, 60.0, 0.5);
            }
        }
    }
}

#[test]
fn two_flows() {
    for (name, source) in sources() {
        for second in [0.0, 20.0] {
            let flows = vec![Flow::new(source, |_| PLENTY), Flow::new(source, |_| PLENTY).starting(second)];
            let run = run(&Path::new(3e6, 50), flows, 120);
            assert!(run.utilisation(60, 120) > 0.8);
            show(&format!("two flows, second at {second} s, {name}"), &run, 60, 120);
            println!("   {:.0} {:.0}", run.flows[0].rate(60, 120), run.flows[1].rate(60, 120));
            trace(&run, 0.0, 120.0, 1.0);
        }
    }
}
