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

/// What is said once so many workers have stood still for longer than they may, each of them with
/// this heartbeat all the time.
fn standing(beats: &[Message]) -> String {
    let start = Instant::now();
    let mut run = Supervision::new(beats.len(), LIMITS, start);
    for rank in 0..beats.len() {
        let mut hello = hello(rank);
        if let Message::Hello { world_size, .. } = &mut hello {
            *world_size = beats.len();
        }
        run.hear(rank, &hello, start);
    }
    for second in 0..30 {
        for (rank, beat) in beats.iter().enumerate() {
            // Heartbeats come one after another; whoever is looked at first is the first over its limit.
            let now = start + Duration::from_millis(1000 * second + rank as u64);
            run.hear(rank, beat, now);
            run.check(now);
        }
    }
    assert_eq!(run.verdict().code, ExitCode::Hang);
    run.verdict().message
}

/// A heartbeat that tells of no collective: of an older worker over NCCL.
fn silent_of_calls(phase: Phase, step: u64) -> Message {
    Message::Heartbeat { phase, step, part: 0, call: None }
}

/// Who is named, by rank.
fn named(message: &str) -> Vec<usize> {
    let ranks = message.split("rank ").skip(1);
    ranks.map(|rest| rest.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

/// Over NCCL the host goes on to the wait for the step's numbers, in phase compute, while the sum is
/// outstanding on the device: the heartbeat says so.
#[test]
fn over_nccl_the_one_that_has_not_launched_the_sum_is_named() {
    let waits = || in_call(Phase::Compute, 5, 17, 100, true);
    let message = standing(&[waits(), waits(), waits(), in_call(Phase::Data, 5, 16, 100, false)]);
    let expected = "hang: no progress for 20 s of rank 3 on host node, pid 103, phase data, step 5";
    assert_eq!(message, expected);
    // Also where it computes, as the others seem to.
    let message = standing(&[waits(), in_call(Phase::Compute, 5, 16, 100, false), waits()]);
    assert_eq!(named(&message), [1]);
}

#[test]
fn over_nccl_all_that_wait_in_one_collective_name_nobody() {
    let waits = || in_call(Phase::Compute, 5, 17, 100, true);
    let message = standing(&[waits(), waits(), waits()]);
    let start = "hang: all workers wait in all_reduce number 17 of 100 f32 for 20 s: look at the";
    assert!(message.starts_with(start), "{message}");
}

#[test]
fn where_no_heartbeat_tells_of_calls_the_odd_one_out_is_named() {
    use Phase::{Compute, Data};
    let of = |places: &[(Phase, u64)]| {
        standing(
            &places.iter().map(|&(phase, step)| silent_of_calls(phase, step)).collect::<Vec<_>>(),
        )
    };
    // A batch is waited for, and no other worker.
    assert_eq!(named(&of(&[(Compute, 3), (Compute, 3), (Compute, 3), (Data, 3)])), [3]);
    // Three loaders hang, and one worker has its batch.
    assert_eq!(named(&of(&[(Compute, 3), (Data, 3), (Data, 3), (Data, 3)])), [1, 2, 3]);
    // In one phase, but another step.
    assert_eq!(named(&of(&[(Compute, 4), (Compute, 4), (Compute, 3), (Compute, 4)])), [2]);
    assert_eq!(named(&of(&[(Compute, 4), (Compute, 4), (Phase::Checkpoint, 4)])), [2]);
    // Nothing tells them apart: the lowest is not the culprit for being the lowest.
    let message = of(&[(Compute, 3), (Compute, 3), (Compute, 3)]);
    assert_eq!(message, "hang: all workers wait for 20 s: look at the network between them");
}

/// Of two nobody is in the majority.
#[test]
fn of_two_workers_the_one_that_is_known_not_to_wait_is_named_or_nobody() {
    use Phase::{Checkpoint, Compute, Data};
    for [first, second] in [[Data, Compute], [Data, Checkpoint], [Data, Phase::Reduce]] {
        let message = standing(&[silent_of_calls(first, 3), silent_of_calls(second, 3)]);
        assert_eq!(named(&message), [0], "{message}");
        let message = standing(&[silent_of_calls(second, 3), silent_of_calls(first, 3)]);
        assert_eq!(named(&message), [1], "{message}");
    }
    // One waits, so the other is waited for; one is a step behind.
    let message = standing(&[silent_of_calls(Compute, 3), silent_of_calls(Phase::Reduce, 3)]);
    assert_eq!(named(&message), [0]);
    let message = standing(&[silent_of_calls(Compute, 4), silent_of_calls(Compute, 3)]);
    assert_eq!(named(&message), [1]);
    let message = standing(&[silent_of_calls(Compute, 3), silent_of_calls(Checkpoint, 3)]);
    assert_eq!(named(&message), [0; 0], "{message}");
}

#[test]
fn several_culprits_are_all_named_and_many_are_counted() {
    let waits = || in_call(Phase::Compute, 5, 17, 100, true);
    let works = || in_call(Phase::Data, 5, 16, 100, false);
    let message = standing(&[works(), waits(), works(), waits()]);
    assert_eq!(
        message,
        "hang: no progress for 20 s of rank 0 on host node, pid 100, phase data, step 5; rank 2 on \
         host node, pid 102, phase data, step 5"
    );
    let message = standing(&[waits(), works(), works(), works(), works(), works()]);
    assert_eq!(named(&message), [1, 2, 3]);
    assert!(message.ends_with("; and 2 more"), "{message}");
    // All stand in their loaders: none of them is the one that the others wait for.
    assert_eq!(
        standing(&[works(), works(), works()]),
        "hang: no progress for 20 s of any worker, and none waits for another: all are in phase \
         data, step 5"
    );
}

/// Its own deadline ends the wait of rank 0 before ours does.
#[test]
fn who_is_not_there_is_not_guessed_from_the_lowest_rank() {
    let told = |places: [Phase; 2]| {
        let (mut run, now) = three();
        run.hear(0, &silent_of_calls(Phase::Compute, 4), now);
        for (rank, phase) in [1, 2].into_iter().zip(places) {
            run.hear(rank, &silent_of_calls(phase, 4), now);
        }
        run.hear(0, &outcome(ExitCode::Hang, "late"), now);
        run.verdict().message
    };
    let message = told([Phase::Compute, Phase::Data]);
    assert_eq!(
        message,
        "rank 0: late; not there yet: rank 2 on host node, pid 102, phase data, step 4"
    );
    let message = told([Phase::Compute, Phase::Compute]);
    assert!(!message.contains("not there yet"), "{message}");
}

/// Over NCCL no worker says how long it has waited: nothing is compared, and no share shown.
#[test]
fn workers_that_do_not_tell_what_they_wait_have_no_share() {
    let (mut run, start) = three();
    for second in 0..60 {
        let now = start + Duration::from_secs(second);
        for rank in 0..3 {
            run.hear(rank, &in_call(Phase::Data, second, 7, 9, false), now);
        }
        assert_eq!(run.late(now), None);
    }
    assert!(run.report(start).iter().all(|worker| worker.waiting_share.is_none()));
}

#[path = "supervision_arrival_tests.rs"]
mod arrival;
