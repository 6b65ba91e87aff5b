//! `GET, PUT /v1/archive`: a directory of the workspace as one archive, sent or received.

mod receive;
mod send;

use corehold_types::{Code, Problem, WorkspacePath};
use http::Uri;

pub(super) use super::query;
pub(crate) use receive::put;
pub(crate) use send::get;

/// The values of a query's parameters, in this order. Others are refused.
fn parameters<const N: usize>(uri: &Uri, names: [&str; N]) -> Result<[Option<Vec<u8>>; N], Problem> {
    let mut values = std::array::from_fn(|_| None);
    for query::Pair { name, value } in query::pairs(uri)? {
        let Some(index) = names.iter().position(|known| known.as_bytes() == name) else {
            let (name, known) = (name.escape_ascii(), names.join(" and "));
            return Err(Problem::new(
                Code::InvalidRequest,
                format!("the query's {name} is unknown; there are {known}"),
            ));
        };
        values[index] = Some(value);
    }
    Ok(values)
}

fn path_or_root(path: Option<Vec<u8>>) -> WorkspacePath {
    path.map_or_else(|| ".".into(), |path| WorkspacePath::from_bytes(&path))
}
