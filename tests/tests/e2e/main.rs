//! End-to-end tests against a real engine: one binary, one module a subject.

// Each runtime through the suite that all of them pass.
mod conformance;
// Docker beyond the suite: races, faults, finding the engine.
mod docker;
// The core image: built, cached, measured, and what is in it.
mod image;
