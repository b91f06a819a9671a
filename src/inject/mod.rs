//! All that the guest does inside its host.
