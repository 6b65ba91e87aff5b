//! Many editors at once.

use super::*;

fn increment(world: &World, paths: &[&str]) {
    loop {
        let entry = |path: &&str| {
            let text = world.text(path);
            let next = text.trim().parse::<u64>().unwrap() + 1;
            expecting(&hash(&text), file(path, vec![create(&format!("{next}\n"), true)]))
        };
        match world.edit(paths.iter().map(entry).collect()) {
            Ok(_) => return,
            Err(problem) => assert_eq!(problem.code, Code::VersionMismatch, "{problem}"),
        }
    }
}

#[test]
fn editors_with_expected_hashes_lose_no_update() {
    let world = World::with(&[("a", "0\n"), ("b", "0\n"), ("c", "0\n")]);
    std::os::unix::fs::symlink("a", world.folder.join("link")).unwrap();
    const ROUNDS: u64 = 20;
    std::thread::scope(|scope| {
        for editor in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // Two files each, in all orders, and one of them by another name.
                    let pairs: [&[&str]; 4] = [&["a", "b"], &["b", "c"], &["c", "link"], &["b", "a"]];
                    increment(world, pairs[(editor + round as usize) % 4]);
                }
            });
        }
    });
    let count = |path: &str| world.text(path).trim().parse::<u64>().unwrap();
    // Each pair is edited by a quarter of all rounds: `a` is in three, `b` in three, `c` in two.
    assert_eq!((count("a"), count("b"), count("c")), (8 * ROUNDS * 3 / 4, 8 * ROUNDS * 3 / 4, 8 * ROUNDS / 2));
    assert_eq!(look(&world.folder).len(), 4);
}

#[test]
fn editors_without_expectation_lose_no_update_either() {
    let world = World::with(&[("list", "")]);
    std::thread::scope(|scope| {
        for editor in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for round in 0..20 {
                    world.edit(vec![file("list", vec![insert(1, &format!("{editor}-{round}"))])]).unwrap();
                }
            });
        }
    });
    let mut lines: Vec<_> = world.text("list").lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 160);
}
