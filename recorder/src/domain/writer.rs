//! How a domain's thread writes what was read, part by part.

use std::sync::Arc;
use std::time::Instant;

use common::domain::Domain;
use common::stop::Stop;

use super::fetch::{Found, Reading};
use crate::decode::batch::Parts;
use crate::decode::row::Labels;
use crate::domain::failure::Failure;
use crate::domain::resume::Position;
use crate::postgres::domain_table::TableSql;
use crate::report::counts::Counts;
use crate::shared::Shared;
use crate::transaction::Writer;
use crate::transaction::dedup::{Marks, Sayings};
use crate::transaction::smart::Memory;

/// What a domain's thread needs to write, apart from what it reads by.
#[derive(Debug)]
pub(super) struct Writing {
    shared: Arc<Shared>,
    stop: Stop,
    pub(super) table: TableSql,
    memory: Option<Memory>,
    pub(super) marks: Marks,
    pub(super) sayings: Sayings,
    pub(super) counts: Counts,
    /// When another recorder was seen at work on the domain.
    pub(super) doubted: Option<Instant>,
}

impl Writing {
    /// To a domain's table.
    pub(super) fn new(domain: &Domain, shared: Arc<Shared>, stop: Stop) -> Self {
        Self {
            table: TableSql::new(domain),
            memory: shared.smart.then(Memory::default),
            shared,
            stop,
            marks: Marks::default(),
            sayings: Sayings::default(),
            counts: Counts::default(),
            doubted: None,
        }
    }

    /// What another recorder may have changed is not known any more.
    pub(super) fn forget(&mut self) {
        self.memory = self.shared.smart.then(Memory::default);
    }

    /// Nothing is written after the lease: it would be fenced, but only after
    /// it was in another recorder's way.
    pub(super) fn check_lease(&self) -> Result<(), Failure> {
        if self.shared.lease.holds(self.doubted) { Ok(()) } else { Err(Failure::LeaseOver) }
    }

    /// Writes what was found in each partition, and moves its position.
    pub(super) fn write_all(
        &mut self,
        labels: &Labels,
        readings: &mut [Reading],
        found: Found,
    ) -> Vec<Result<(), Failure>> {
        let write = |(reading, found): (&mut Reading, _)| match found {
            Ok(parts) => self.write(labels, reading, parts),
            Err(error) => Err(Failure::from(error)),
        };
        readings.iter_mut().zip(found).map(write).collect()
    }

    fn write(
        &mut self,
        labels: &Labels,
        Reading { partition, position, .. }: &mut Reading,
        Parts { parts, high_watermark, .. }: Parts,
    ) -> Result<(), Failure> {
        for part in parts {
            let to = Position { next_offset: part.next_offset, ..*position };
            self.check_lease()?;
            let mut writer = Writer {
                database: &self.shared.database,
                stop: &self.stop,
                table: &self.table,
                labels,
                memory: self.memory.as_mut(),
                marks: &mut self.marks,
            };
            let written = writer.write(partition, *position, part)?;
            self.counts.add(written);
            self.sayings.add(written.irregular);
            *position = to;
        }
        if position.next_offset == high_watermark {
            // Nothing waits to be recorded, so that a run that is silent is over.
            self.marks.remove_old(&self.shared.database, &self.stop, partition)?;
        }
        Ok(())
    }
}
