//! Names that somebody may have meant.

/// The names within a few keystrokes of `wanted`, or that it begins or contains, nearest first; at most three.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let allowed = (wanted.chars().count() / 3).clamp(1, 4);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = strsim::damerau_levenshtein(&wanted, &lower);
            let part = wanted.len() >= 3 && (lower.contains(&wanted) || wanted.contains(&lower));
            (distance <= allowed || part).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().map(|(_, name)| name).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_and_parts_are_near_and_strangers_are_not() {
        let names = ["vite-react", "node-api", "static-site", "python-web"];
        assert_eq!(nearest("vite-raect", names), ["vite-react"]);
        assert_eq!(nearest("react", names), ["vite-react"]);
        assert_eq!(nearest("NODE-API", names), ["node-api"]);
        assert!(nearest("rails", names).is_empty());
    }
}
