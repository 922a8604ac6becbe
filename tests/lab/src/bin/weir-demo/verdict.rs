//! What the demo promises, and whether it was kept: to visitors always; of the services where sidecars can tell.

use std::collections::BTreeMap;

use boutique_load::Totals;
use weir_lab::shop::Mesh;

use crate::table::Table;

/// `failures`: what visitors got in place of a page, and how often.
pub(crate) fn broken_promises(
    mesh: Mesh,
    table: &Table,
    visitors: &Totals,
    failures: &BTreeMap<String, u64>,
) -> Vec<String> {
    let mut broken = match mesh {
        Mesh::On => table.broken_promises(),
        // Nobody counts the calls between services, but a page says what it had to do without.
        Mesh::Off if visitors.degraded > 0 => {
            vec![format!(
                "{} pages did without a part of the shop",
                visitors.degraded
            )]
        }
        Mesh::Off => Vec::new(),
    };
    if visitors.offered == 0 {
        broken.push("nobody visited the shop".to_owned());
    }
    if visitors.served() != visitors.offered {
        broken.push(format!("visitors: {failures:?}"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::table;

    fn visitors(ok: u64, degraded: u64, error: u64) -> Totals {
        Totals {
            offered: ok + degraded + error,
            done: ok + degraded + error,
            ok,
            degraded,
            error,
            ..Totals::default()
        }
    }

    #[test]
    fn visitors_are_promised_their_pages_with_the_mesh_and_without_and_services_only_where_sidecars_tell()
     {
        let silent = table(&["catalog"]);
        let judge = |mesh, visitors: Totals| {
            let failures = BTreeMap::from([("503".to_owned(), visitors.error)]);
            broken_promises(mesh, &silent, &visitors, &failures)
        };
        assert_eq!(judge(Mesh::Off, visitors(100, 0, 0)), Vec::<String>::new());
        let failed = judge(Mesh::Off, visitors(99, 0, 1));
        assert!(failed.len() == 1 && failed[0].contains("503"), "{failed:?}");
        assert_eq!(judge(Mesh::Off, visitors(99, 1, 0)).len(), 1);
        assert_eq!(judge(Mesh::Off, visitors(0, 0, 0)).len(), 1);
        let said = judge(Mesh::On, visitors(100, 0, 0));
        assert_eq!(said, ["catalog had no traffic"]);
    }
}
