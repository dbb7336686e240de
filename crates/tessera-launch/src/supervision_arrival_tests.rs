//! Of a start, and of connections that break.

use super::*;

/// Heartbeats of these ranks, in this phase.
fn beat(run: &mut Supervision, ranks: &[usize], phase: Phase, step: u64, now: Instant) {
    for &rank in ranks {
        run.hear(rank, &Message::Heartbeat { phase, step, part: 0, call: None }, now);
    }
}

fn broken() -> End {
    End::Broken("Connection reset by peer".into())
}

#[test]
fn a_worker_whose_connection_broke_has_as_long_to_come_back_as_it_may_be_silent() {
    let (mut run, start) = three();
    let at = |second| start + Duration::from_secs(second);
    beat(&mut run, &[0, 1, 2], Phase::Data, 1, at(1));
    run.disconnect(2, broken(), at(2));
    assert!(!run.failed());
    assert_eq!(run.away().collect::<Vec<_>>(), [(2, "node", 102)]);
    for second in 3..60 {
        beat(&mut run, &[0, 1], Phase::Data, second, at(second));
        run.check(at(second));
    }
    assert!(!run.failed());
    let line = run.hear(2, &hello(2), at(60)).unwrap();
    let expected = "rank 2 on host node is back: its connection had broken for 58.0 s (Connection \
                    reset by peer)";
    assert_eq!(line, expected);
    assert_eq!((run.away().count(), run.report(at(60))[2].connected), (0, true));
    beat(&mut run, &[0, 1, 2], Phase::Data, 60, at(61));
    run.check(at(61));
    assert!(!run.failed());

    run.disconnect(2, broken(), at(62));
    for second in 62..=122 {
        beat(&mut run, &[0, 1], Phase::Data, second, at(second));
        run.check(at(second));
        assert_eq!(run.failed(), second > 121, "after {second} s");
    }
    let verdict = run.verdict();
    assert_eq!(verdict.code, ExitCode::WorkerLost);
    assert_eq!(
        verdict.message,
        "worker lost: rank 2 on host node, pid 102, phase data, step 60 (its connection broke 60 s \
         ago: Connection reset by peer)"
    );
}

#[test]
fn an_orderly_end_without_an_outcome_and_a_death_are_losses_at_once() {
    let (mut run, now) = three();
    run.disconnect(1, End::InOrder, now);
    assert_eq!(run.lost_worker(), Some(1));
    // Its process is seen dead, or mpirun ends, while it is away.
    let (mut run, now) = three();
    run.disconnect(1, broken(), now);
    run.close(1);
    assert_eq!(run.lost_worker(), Some(1));
    let (mut run, now) = three();
    for rank in [0, 2] {
        run.hear(rank, &outcome(ExitCode::Done, "done"), now);
    }
    run.disconnect(1, broken(), now);
    assert!(!run.any_connected() || !run.failed());
    run.end();
    assert_eq!(run.lost_worker(), Some(1));
    // After its last words nobody waits for it.
    let (mut run, now) = three();
    run.hear(1, &outcome(ExitCode::Done, "done"), now);
    run.disconnect(1, broken(), now);
    run.check(now + Duration::from_secs(1));
    assert_eq!((run.failed(), run.away().count()), (false, 0));
}

#[test]
fn a_start_says_every_30_s_whom_it_waits_for_and_what_the_others_do() {
    let start = Instant::now();
    let mut run = Supervision::new(3, LIMITS, start);
    let at = |second| start + Duration::from_secs(second);
    run.hear(1, &hello(1), at(1));
    beat(&mut run, &[1], Phase::Meet, 0, at(2));
    assert_eq!(run.waits_for(at(29)), None);
    let line = run.waits_for(at(31)).unwrap();
    assert_eq!(line, "start, 31 s so far: waiting for rank 0, 2; in phase meet: rank 1");
    assert_eq!(run.waits_for(at(60)), None);
    run.hear(0, &hello(0), at(60));
    run.hear(2, &hello(2), at(60));
    beat(&mut run, &[0], Phase::Start, 0, at(60));
    let line = run.waits_for(at(62)).unwrap();
    let expected = "start, 62 s so far: all workers are here; in phase meet: rank 1, 2; in phase start: rank 0";
    assert_eq!(line, expected);
    beat(&mut run, &[1, 2], Phase::Start, 0, at(63));
    assert_eq!(run.waits_for(at(100)), None, "the set-up has a limit of its own");
}

#[test]
fn workers_that_came_early_have_as_long_to_meet_as_the_last_one() {
    let start = Instant::now();
    let mut run = Supervision::new(3, LIMITS, start);
    let at = |second| start + Duration::from_secs(second);
    [0, 1].into_iter().for_each(|rank| drop(run.hear(rank, &hello(rank), at(1))));
    for second in 1..=38 {
        if second == 19 {
            run.hear(2, &hello(2), at(19));
        }
        beat(&mut run, &[0, 1, 2], Phase::Meet, 0, at(second));
        run.check(at(second));
    }
    assert!(!run.failed(), "{:?}", run.verdict());
    beat(&mut run, &[0, 1, 2], Phase::Meet, 0, at(40));
    run.check(at(40));
    assert!(run.failed());
}

#[test]
fn workers_that_never_meet_wait_for_one_another_and_one_that_stays_behind_is_named() {
    let (mut run, start) = three();
    let at = |second| start + Duration::from_secs(second);
    for second in 0..=20 {
        beat(&mut run, &[0, 1, 2], Phase::Meet, 0, at(second));
        run.check(at(second));
    }
    assert!(!run.failed());
    beat(&mut run, &[0, 1, 2], Phase::Meet, 0, at(21));
    run.check(at(21));
    assert!(run.verdict().message.starts_with("hang: all workers wait"), "{:?}", run.verdict());

    let (mut run, start) = three();
    let at = |second| start + Duration::from_secs(second);
    for second in 0..=21 {
        beat(&mut run, &[0, 1], if second > 5 { Phase::Start } else { Phase::Meet }, 0, at(second));
        beat(&mut run, &[2], Phase::Meet, 0, at(second));
        run.check(at(second));
    }
    let message = run.verdict().message;
    assert!(message.starts_with("hang: no progress for 21 s of rank 2 on host node"), "{message}");
}
