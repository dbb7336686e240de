use super::*;
use crate::listener::End;

const LIMITS: Limits = Limits {
    silence: Duration::from_secs(60),
    late: Some(Duration::from_secs(10)),
    stuck: [Duration::from_secs(20); Phase::NUM],
};

fn hello(rank: usize) -> Message {
    Message::Hello {
        token: String::new(),
        proof: String::new(),
        attempt: None,
        rank,
        world_size: 3,
        host: "node".into(),
        pid: 100 + u32::try_from(rank).unwrap(),
    }
}

fn outcome(code: ExitCode, message: &str) -> Message {
    Message::Outcome { code, message: message.into(), step: 9 }
}

/// Three workers that have said hello, and the time at which they did.
fn three() -> (Supervision, Instant) {
    let now = Instant::now();
    let mut run = Supervision::new(3, LIMITS, now);
    for rank in 0..3 {
        run.hear(rank, &hello(rank), now);
    }
    (run, now)
}

#[test]
fn the_code_on_which_all_agree_is_the_runs() {
    for code in [ExitCode::Done, ExitCode::Stopped] {
        let (mut run, now) = three();
        for rank in 0..3 {
            assert!(!run.all_told());
            run.hear(rank, &outcome(code, "well"), now);
            run.close(rank);
        }
        run.end();
        let verdict = run.verdict();
        assert_eq!((verdict.code, verdict.message.as_str(), verdict.step), (code, "well", 9));
        assert!(verdict.agreed && !run.failed());
    }
}

#[test]
fn a_rank_that_closes_without_an_outcome_is_named_with_phase_and_step() {
    let (mut run, now) = three();
    run.hear(2, &Message::Heartbeat { phase: Phase::Reduce, step: 41, part: 0, call: None }, now);
    run.close(2);
    // Its peers notice afterwards, each in its own words: echoes.
    run.hear(0, &outcome(ExitCode::Failed, "MPI_Allreduce failed"), now);
    run.close(1);
    run.explain("signal 9 (Killed)".into());
    let verdict = run.verdict();
    assert_eq!(verdict.code, ExitCode::WorkerLost);
    assert_eq!(
        verdict.message,
        "worker lost: rank 2 on host node, pid 102, phase reduce, step 41 (signal 9 (Killed))"
    );
    assert_eq!(verdict.step, 41);
    assert!(!verdict.agreed);
}

#[test]
fn what_a_rank_repeats_of_another_one_is_told_once() {
    let (mut run, now) = three();
    run.hear(1, &outcome(ExitCode::BadInput, "rank 0: cannot make the folder"), now);
    assert_eq!(run.verdict().message, "rank 0: cannot make the folder");
}

#[test]
fn the_first_failure_that_a_rank_tells_goes_before_later_losses() {
    let (mut run, now) = three();
    run.hear(1, &outcome(ExitCode::Numeric, "loss is NaN at step 9"), now);
    run.close(1);
    run.close(0);
    run.close(2);
    run.mpirun_killed(9);
    run.end();
    let verdict = run.verdict();
    assert_eq!(verdict.code, ExitCode::Numeric);
    assert_eq!(verdict.message, "rank 1: loss is NaN at step 9");
}

#[test]
fn a_peer_that_reports_a_loss_gives_way_to_the_rank_that_is_lost() {
    let (mut run, now) = three();
    run.hear(0, &outcome(ExitCode::WorkerLost, "a peer is gone"), now);
    run.close(2);
    let message = run.verdict().message;
    assert!(message.starts_with("worker lost: rank 2 on host node"), "{message}");
}

#[test]
fn silence_of_an_open_connection_is_a_hang_and_noise_is_not() {
    let (mut run, now) = three();
    let later = now + Duration::from_secs(59);
    run.check(later);
    assert!(!run.failed());
    run.hear(0, &Message::Heartbeat { phase: Phase::Data, step: 1, part: 0, call: None }, later);
    run.hear(1, &Message::Heartbeat { phase: Phase::Data, step: 1, part: 0, call: None }, later);
    run.check(now + Duration::from_secs(61));
    assert_eq!(run.silent_worker(), Some(("node", 102)));
    assert!(run.hopeless());
    let verdict = run.verdict();
    assert_eq!(verdict.code, ExitCode::Hang);
    assert_eq!(
        verdict.message,
        "hang: nothing heard for 61 s from rank 2 on host node, pid 102, before its first step"
    );
}

/// Rank 2 was stopped, ranks 0 and 1 wait for it, and their own deadline is shorter than ours.
#[test]
fn whoever_others_hang_for_is_named() {
    let (mut run, now) = three();
    let later = now + Duration::from_secs(9);
    for rank in [0, 1] {
        run.hear(
            rank,
            &Message::Heartbeat { phase: Phase::Reduce, step: 4, part: 0, call: None },
            later,
        );
    }
    let message = "late".to_owned();
    run.hear(0, &Message::Outcome { code: ExitCode::Hang, message, step: 4 }, later);
    // Woken up to be ended, it speaks once more.
    run.hear(2, &Message::Heartbeat { phase: Phase::Data, step: 4, part: 0, call: None }, later);
    let verdict = run.verdict();
    assert_eq!(verdict.code, ExitCode::Hang);
    assert_eq!(
        verdict.message,
        "rank 0: late; nothing heard for 9 s from rank 2 on host node, pid 102, phase data, step 4"
    );
}

#[test]
fn a_rank_that_lives_but_waits_elsewhere_is_named() {
    let (mut run, now) = three();
    for (rank, phase) in [(0, Phase::Reduce), (1, Phase::Data), (2, Phase::Reduce)] {
        run.hear(rank, &Message::Heartbeat { phase, step: 4, part: 0, call: None }, now);
    }
    let message = "late".to_owned();
    run.hear(0, &Message::Outcome { code: ExitCode::Hang, message, step: 4 }, now);
    assert_eq!(
        run.verdict().message,
        "rank 0: late; not there yet: rank 1 on host node, pid 101, phase data, step 4"
    );
}

#[test]
fn a_launcher_that_was_asleep_accuses_nobody() {
    let (mut run, now) = three();
    let later = now + Duration::from_secs(3600);
    run.forgive(later);
    run.check(later + Duration::from_secs(1));
    assert!(!run.failed());
}

#[test]
fn a_rank_that_has_told_its_outcome_may_be_silent() {
    let (mut run, now) = three();
    let later = now + Duration::from_secs(90);
    run.hear(0, &outcome(ExitCode::Done, "done"), now);
    run.hear(1, &Message::Heartbeat { phase: Phase::Finish, step: 9, part: 0, call: None }, later);
    run.hear(2, &Message::Heartbeat { phase: Phase::Finish, step: 9, part: 0, call: None }, later);
    run.check(later);
    assert!(!run.failed());
}

#[test]
fn who_never_says_hello_is_named() {
    let now = Instant::now();
    let mut run = Supervision::new(3, LIMITS, now);
    run.hear(1, &hello(1), now + Duration::from_secs(10));
    run.check(now + Duration::from_secs(19));
    assert!(!run.failed() && !run.all_ready());
    run.check(now + Duration::from_secs(21));
    let verdict = run.verdict();
    assert_eq!(verdict.code, ExitCode::WorkerLost);
    assert_eq!(verdict.message, "worker lost: rank 0, 2 never reached the launcher");
    assert!(verdict.unexplained);
}

#[test]
fn a_killed_mpirun_explains_the_losses_but_not_a_run_that_was_over() {
    let (mut run, _) = three();
    run.close(0);
    run.mpirun_killed(9);
    assert!(run.verdict().message.contains("mpirun was killed by signal 9"));

    let (mut run, now) = three();
    for rank in 0..3 {
        run.hear(rank, &outcome(ExitCode::Done, "done"), now);
    }
    run.mpirun_killed(9);
    assert_eq!(run.verdict().code, ExitCode::Done);
}

#[test]
fn worlds_of_one_are_refused() {
    let now = Instant::now();
    let mut run = Supervision::new(3, LIMITS, now);
    let Message::Hello { token, proof, attempt, rank, host, pid, .. } = hello(0) else { return };
    let alone = Message::Hello { token, proof, attempt, rank, world_size: 1, host, pid };
    run.hear(0, &alone, now);
    assert_eq!(run.verdict().code, ExitCode::BadInput);
}

#[test]
fn ranks_that_part_ways_are_a_mismatch() {
    let (mut run, now) = three();
    run.hear(0, &outcome(ExitCode::Done, "done"), now);
    run.hear(1, &outcome(ExitCode::Stopped, "stopped"), now);
    run.hear(2, &outcome(ExitCode::Done, "done"), now);
    run.end();
    assert_eq!(run.verdict().code, ExitCode::Hang);
}

/// A heartbeat in the collective of this number.
fn in_call(phase: Phase, step: u64, sequence: u64, count: u64, waiting: bool) -> Message {
    let (op, kind) = ("all_reduce".into(), "f32".into());
    let call = Call { op, sequence, count, kind, waiting, waited_ms: 0 };
    Message::Heartbeat { phase, step, part: 0, call: Some(call) }
}

#[test]
fn a_worker_that_speaks_and_does_not_move_is_stuck() {
    let (mut run, start) = three();
    // Two wait for the third, which sits in its data.
    for second in 0..30 {
        let now = start + Duration::from_secs(second);
        run.hear(0, &in_call(Phase::Reduce, 5, 17, 100, true), now);
        run.hear(1, &in_call(Phase::Data, 5, 16, 100, false), now);
        run.hear(2, &in_call(Phase::Reduce, 5, 17, 100, true), now);
        run.check(now);
        assert_eq!(run.failed(), second > 20, "after {second} s");
    }
    let verdict = run.verdict();
    assert_eq!(verdict.code, ExitCode::Hang);
    let expected = "hang: no progress for 21 s of rank 1 on host node, pid 101, phase data, step 5";
    assert_eq!(verdict.message, expected);
}

/// By hand: a collective took 4 s before, so 10 times that is the limit, more than the floor.
#[test]
fn what_has_taken_long_before_may_take_longer() {
    let (mut run, start) = three();
    let at = |second| start + Duration::from_secs(second);
    for (second, step) in [(0, 1), (4, 2)] {
        for rank in 0..3 {
            run.hear(rank, &in_call(Phase::Reduce, step, step, 8, true), at(second));
        }
    }
    for second in 5..60 {
        for rank in 0..3 {
            run.hear(rank, &in_call(Phase::Reduce, 2, 2, 8, true), at(second));
        }
        run.check(at(second));
        assert_eq!(run.failed(), second > 44, "after {second} s");
    }
    assert_eq!(
        run.verdict().message,
        "hang: all workers wait in all_reduce number 2 of 8 f32 for 41 s: look at the network \
         between them"
    );
}

#[test]
fn collectives_that_do_not_fit_are_named_with_both_sides() {
    let (mut run, now) = three();
    run.hear(0, &in_call(Phase::Reduce, 5, 17, 1000, true), now);
    run.hear(2, &in_call(Phase::Reduce, 5, 17, 1000, true), now);
    run.hear(1, &in_call(Phase::Reduce, 5, 17, 500, true), now);
    run.hear(1, &outcome(ExitCode::WorkerLost, "MPI_ERR_TRUNCATE"), now);
    let verdict = run.verdict();
    assert_eq!(verdict.code, ExitCode::Hang);
    assert_eq!(
        verdict.message,
        "mismatch: rank 0 is in all_reduce number 17 of 1000 f32, rank 1 in all_reduce number 17 \
         of 500 f32 (rank 1: MPI_ERR_TRUNCATE)"
    );
    let report = run.report(now);
    assert_eq!((report[1].step, report[1].exit_code), (9, Some(ExitCode::WorkerLost)));
}

#[test]
fn batches_of_an_evaluation_are_progress() {
    let (mut run, now) = three();
    let heard = |part| Message::Heartbeat { phase: Phase::Evaluate, step: 4, part, call: None };
    for second in 1..=60 {
        let now = now + Duration::from_secs(second);
        for rank in 0..3 {
            run.hear(rank, &heard(if rank == 1 { second.min(30) } else { second }), now);
        }
        run.check(now);
        assert_eq!(run.failed(), second > 50, "{second}");
    }
    let message = run.verdict().message;
    assert!(message.starts_with("hang: no progress for 21 s of rank 1 on host node"), "{message}");
}

#[test]
fn whom_the_others_wait_for_is_told_once() {
    let (mut run, now) = three();
    let mut lines = Vec::new();
    for second in 0..60 {
        let now = now + Duration::from_secs(second);
        for rank in 0..3 {
            let (op, kind) = ("all_reduce".into(), "f32".into());
            let waited_ms = second * if rank == 2 { 10 } else { 510 };
            let call = Call { op, sequence: 1, count: 9, kind, waiting: false, waited_ms };
            let step = second;
            let data = Message::Heartbeat { phase: Phase::Data, step, part: 0, call: Some(call) };
            run.hear(rank, &data, now);
        }
        run.check(now);
        lines.extend(run.late(now).map(|line| (second, line)));
    }
    assert!(!run.failed());
    let [(second, line)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(*second, 20, "the second window is over");
    let words =
        "late: the others wait 50 % of their time for rank 2 on host node, pid 102, phase data";
    assert!(line.starts_with(words), "{line}");
    let shares: Vec<_> = run.report(now).iter().map(|worker| worker.waiting_share).collect();
    assert_eq!(shares, [Some(0.51), Some(0.51), Some(0.01)]);
}

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
