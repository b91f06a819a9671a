//! Processes that rename themselves, as vLLM's do by setproctitle.

use crate::hosts::host;

#[test]
fn a_worker_has_the_name_that_it_gave_itself_last() {
    let ended = host("titles.c", "--gate profiler").run().assert_code(0);
    let session = ended.session();
    assert_eq!(session.count("kernels"), 7);
    let process = session.process();
    assert_eq!(process.command, ["W::Worker_TP0"]);
    let expected = format!("W::Worker_TP0 (pid {})", process.pid);
    assert!(ended.stderr().contains(&expected), "{}", ended.stderr());
}
