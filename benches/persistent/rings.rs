//! The host's side of a resident kernel's rings: an item's way in and out, without a device.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use kasmina_ring::{HostWords, Rings, Words};
use kasmina_types::ItemDescriptor;
use kasmina_types::manifold::{LINE_WORDS, NEEDS, Need, tagged};

const CAPACITY: usize = 64;

fn rings(criterion: &mut Criterion) {
    let lines = Arc::new(HostWords::zeroed(CAPACITY * LINE_WORDS));
    let completions = Arc::new(HostWords::zeroed(CAPACITY));
    let rings = Rings::new(lines, Arc::clone(&completions), 1, CAPACITY, &[1]).expect("one ring");
    let item = ItemDescriptor {
        first: 0,
        count: 1,
        blocks: 1,
        edition: 0,
        reaches_host: false,
        needs: [Need::NONE; NEEDS],
    };
    let mut group = criterion.benchmark_group("rings");
    group.bench_function("push, completion and reap", |bencher| {
        bencher.iter(|| {
            let ticket = rings.try_push(0, item, ()).expect("room");
            let sequence = ticket.sequence() as u32;
            // What the device does.
            completions.store(sequence as usize % CAPACITY, tagged(0, sequence));
            assert_eq!(rings.reap(|_| {}), 1);
        });
    });
    group.bench_function("reap in vain", |bencher| bencher.iter(|| rings.reap(|_| {})));
    group.finish();
}

criterion_group! {
    name = benches;
    config = kasmina_benches::criterion();
    targets = rings
}
criterion_main!(benches);
