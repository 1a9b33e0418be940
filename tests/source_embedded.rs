//! The embedded engine: what is published through the gateway reaches its own subscribers.

#[path = "common/shard.rs"]
mod shard;

use shard::{Rig, carries, config};
use spillgate::source::Reached;

#[test]
fn a_publish_reaches_every_shard_that_listens_and_says_how_many_sockets() {
    let mut rig = Rig::start(&config(None), 3);
    assert_eq!(rig.source.publish_blocking("c", b"unheard".to_vec()), Ok(Reached::Sockets(0)));
    rig.shards[0].want(1, "c");
    rig.shards[2].want(1, "c");
    rig.shards[0].confirmed(1);
    rig.shards[2].confirmed(1);
    assert_eq!(rig.source.publish_blocking("c", b"heard".to_vec()), Ok(Reached::Sockets(10)));
    for shard in [0, 2] {
        assert!(carries(&rig.shards[shard].update(1), "heard"));
    }
    let counters = rig.wait_counted("both publishes", |counters| counters.received == 2);
    assert_eq!((counters.offered, counters.lost, counters.connected), (2, 0, 1));
}
