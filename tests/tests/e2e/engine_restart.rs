//! An engine that is started anew, with all that runs in it.

use corehold_e2e::own_engine::run_apart;

#[test]
fn hosts_find_what_was_there_and_claim_nothing_that_was_restarted() {
    run_apart(env!("CARGO_BIN_EXE_restarted_engine"), &[], "all are there", "engine_restart");
}
