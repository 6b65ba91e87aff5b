//! Every runtime, through the same suite.

mod docker {
    corehold_e2e::conformance_suite!(corehold_e2e::engine::Engine::start());
}
