//! Whatever is asked of an outbox, in whatever order: it does as the plain model does, and no update is lost, torn,
//! doubled or out of order.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/outbox/mod.rs"]
mod outbox;

fuzz_target!(|input: (outbox::RawLimits, Vec<outbox::RawOp>)| {
    let (limits, ops) = input;
    outbox::run(limits, &ops);
});
