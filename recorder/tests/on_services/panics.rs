//! Tests of panics within a transaction.

use std::sync::Arc;
use std::time::Duration;

use common::panics;
use common::stop;
use postgres_client::{PostgresSettings, PostgresUri};
use recorder::postgres::pool::Database;
use recorder::report::outage_log::SharedOutage;
use testkit::services::shared;

use crate::support::World;

/// A panic rolls back its transaction. Other domains can then use the connection.
#[test]
fn a_panic_rolls_back_and_leaves_the_connection_to_other_domains() {
    let mut world = World::new(&shared().unwrap());
    world.database.batch_execute("create table t (n int)").unwrap();
    let (_proxy, uri) = world.proxied();
    let uri = PostgresUri::parse(&uri).unwrap();
    let settings = PostgresSettings { uri, ca: None, application_name: "test".to_owned() };
    let pool = Database::new(settings, 1, Arc::new(SharedOutage::new("postgresql")));
    let (_stopper, stop) = stop::pair();
    let timeout = Duration::from_secs(10);
    for _ in 0..3 {
        let panicked = panics::catch(|| {
            pool.transaction(&stop, timeout, |transaction| {
                transaction.batch("insert into t values (1)")?;
                if true {
                    panic!("on purpose");
                }
                Ok(())
            })
        });
        assert!(panicked.is_err());
    }
    pool.transaction(&stop, timeout, |transaction| {
        Ok(transaction.batch("insert into t values (2)")?)
    })
    .unwrap();
    assert_eq!(world.number("select sum(n)::bigint from t"), Some(2));
}
