//! The resident agent of a Corehold workspace.
