//! A domain with its topic and its database, and recorders that record it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::domain::{Domain, TOPIC_PREFIX};
use common::identity::Run;
use common::record::{Record, Status};
use common::settings::Environment;
use common::stop::{self, Stopper};
use kafka_client::{
    BrokerAddress, KafkaClient, KafkaProducer, KafkaSettings, ProduceOutcome, ProduceRecord,
    ProducerOptions, Security, TopicBatch,
};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{
    Compression, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use recorder::settings::{self, Action};
use recorder::timings::Timings;
use testkit::proxy::PostgresProxy;
use testkit::raw_request::send_raw_request;
use testkit::services::{Services, connect, fresh_database, fresh_name};

/// The time-out of all waits. It is long enough for slow machines.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// The log line of a recorder that another recorder fenced.
pub(crate) const FENCED: &str = "another recorder writes to this domain too";

/// The maximum number of warnings about one outage of this length: one at its start, and one for
/// each minute.
pub(crate) fn outage_warnings(length: Duration) -> usize {
    1 + length.as_secs() as usize / 60
}

/// Polls until `poll` returns a value.
pub(crate) fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

fn kafka_of(services: &Services) -> Arc<KafkaSettings> {
    let addresses = BrokerAddress::parse_list(&services.kafka_plain).unwrap();
    let mut kafka = KafkaSettings::new(addresses, Security::Plain);
    // Requests to a broker that a test has stopped must fail soon.
    kafka.request_timeout_ms = 5_000;
    Arc::new(kafka)
}

/// A domain, its topic and an empty database.
pub(crate) struct World {
    pub(crate) services: Services,
    pub(crate) domain: Domain,
    pub(crate) topic: String,
    pub(crate) prefix: String,
    pub(crate) uri: String,
    pub(crate) database: postgres::Client,
    pub(crate) kafka: Arc<KafkaSettings>,
    producer: KafkaProducer,
}

impl World {
    pub(crate) fn new(services: &Services) -> Self {
        Self::with_prefix(services, TOPIC_PREFIX)
    }

    pub(crate) fn with_prefix(services: &Services, prefix: &str) -> Self {
        let domain = Domain::parse(&format!("{}.example", fresh_name("d"))).unwrap();
        let uri = fresh_database(services).unwrap();
        let database = connect(services, &uri).unwrap();
        let kafka = kafka_of(services);
        Self {
            topic: domain.topic(prefix).unwrap(),
            prefix: prefix.to_owned(),
            services: services.clone(),
            domain,
            uri,
            database,
            producer: KafkaProducer::new(Arc::clone(&kafka), ProducerOptions::default()),
            kafka,
        }
    }

    /// The same world, reached through other brokers.
    pub(crate) fn through(self, services: &Services) -> Self {
        let kafka = kafka_of(services);
        let producer = KafkaProducer::new(Arc::clone(&kafka), ProducerOptions::default());
        Self { services: services.clone(), kafka, producer, ..self }
    }

    pub(crate) fn client(&self) -> KafkaClient {
        KafkaClient::new(Arc::clone(&self.kafka))
    }

    /// Writes values, in order, to partition 0 of the topic. Creates the topic.
    pub(crate) fn produce<V: Into<Vec<u8>>>(&mut self, values: impl IntoIterator<Item = V>) {
        let record = |value: V| ProduceRecord {
            timestamp_ms: now_ms(),
            value: value.into().into(),
            headers: Vec::new(),
        };
        self.produce_records(values.into_iter().map(record).collect());
    }

    /// Writes values with the identities of a run: a sequence number for each value.
    pub(crate) fn produce_of(
        &mut self,
        run: &Run,
        values: impl IntoIterator<Item = (i64, Vec<u8>)>,
    ) {
        let record = |(sequence, value): (i64, Vec<u8>)| ProduceRecord {
            timestamp_ms: now_ms(),
            value: value.into(),
            headers: run.headers(sequence),
        };
        self.produce_records(values.into_iter().map(record).collect());
    }

    pub(crate) fn produce_records(&mut self, records: Vec<ProduceRecord>) {
        let count = records.len();
        let mut batches = vec![TopicBatch { topic: self.topic.clone(), records }];
        eventually("delivery", || {
            let outcomes = self.producer.send(std::mem::take(&mut batches), None);
            let delivered = |outcome: &ProduceOutcome| matches!(outcome, ProduceOutcome::Delivered { records, .. } if *records == count);
            outcomes.iter().any(|(_, outcome)| delivered(outcome)).then_some(())
        });
    }

    /// Writes values to a partition that trackers do not write to. The topic exists.
    pub(crate) fn produce_to(&self, partition: i32, values: impl IntoIterator<Item = Vec<u8>>) {
        self.produce_batch(partition, Self::encoded(values));
    }

    /// A batch in the form of a producer without idempotence.
    pub(crate) fn encoded(values: impl IntoIterator<Item = Vec<u8>>) -> Bytes {
        let record = |(index, value): (usize, Vec<u8>)| kafka_protocol::records::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: index as i64,
            sequence: index as i32,
            timestamp: now_ms(),
            key: None,
            value: Some(value.into()),
            headers: Default::default(),
        };
        let records: Vec<_> = values.into_iter().enumerate().map(record).collect();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        let mut batch = BytesMut::new();
        RecordBatchEncoder::encode(&mut batch, &records, &options).unwrap();
        batch.freeze()
    }

    /// Writes the bytes of a batch. The topic exists.
    pub(crate) fn produce_batch(&self, partition: i32, batch: impl Into<Bytes>) {
        let data =
            PartitionProduceData::default().with_index(partition).with_records(Some(batch.into()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(self.topic.clone())))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        // A new topic has no leader for a short time.
        eventually("delivery", || {
            let response: ProduceResponse = self.ask(ApiKey::Produce, &request, 9);
            (response.responses[0].partition_responses[0].error_code == 0).then_some(())
        });
    }

    /// Deletes the topic, and waits until no broker knows it. Before that, brokers may still write
    /// to the old topic.
    pub(crate) fn delete_topic(&self) {
        eventually("deleted", || {
            let deleted = self.client().delete_topic(&self.topic).is_ok();
            // The topic may be deleted although the response was lost.
            (deleted || self.is_gone()).then_some(())
        });
        eventually("gone", || self.is_gone().then_some(()));
    }

    fn is_gone(&self) -> bool {
        let topics = self.client().topics(std::slice::from_ref(&self.topic));
        topics.is_ok_and(|topics| topics.first().is_some_and(|topic| topic.error.is_some()))
    }

    /// Deletes the records of partition 0 below an offset.
    pub(crate) fn delete_records(&self, below: i64) {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(0).with_offset(below);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_string(self.topic.clone())))
            .with_partitions(vec![partition]);
        let request =
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let response: DeleteRecordsResponse = self.ask(ApiKey::DeleteRecords, &request, 2);
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
    }

    /// Sends a request that the client does not support, and reads the response.
    fn ask<Q, A>(&self, key: ApiKey, request: &Q, version: i16) -> A
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        send_raw_request(&self.services.kafka_plain, key, request, version).unwrap()
    }

    /// Starts a proxy to the database, and returns it with a URI through it. New connections are
    /// fast, because the password is hashed once instead of 4096 times. Commits do not wait for the
    /// disk, because these tests lose connections and not servers.
    pub(crate) fn proxied(&mut self) -> (PostgresProxy, String) {
        let server = format!("127.0.0.1:{}", self.services.postgres_port).parse().unwrap();
        let proxy = PostgresProxy::start(server).unwrap();
        let role = fresh_name("walker").replace('-', "_");
        let make = format!(
            "set scram_iterations = 1; create role {role} superuser login password 'walker'; \
             alter role {role} set synchronous_commit = off"
        );
        self.database.batch_execute(&make).unwrap();
        let name = self.uri.split('?').next().unwrap().rsplit('/').next().unwrap();
        let uri = format!("postgres://{role}:walker@{}/{name}?sslmode=disable", proxy.address());
        (proxy, uri)
    }

    pub(crate) fn table(&self) -> String {
        format!("\"{}\"", self.domain.table())
    }

    /// The number that a query returns. `None`: its table does not exist yet.
    pub(crate) fn number(&mut self, sql: &str) -> Option<i64> {
        self.database.query_one(sql, &[]).ok()?.get(0)
    }

    /// Waits until a query returns this number.
    pub(crate) fn expect(&mut self, sql: &str, expected: i64) {
        let mut last = None;
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            last = self.number(sql);
            if last == Some(expected) {
                return;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        panic!("{sql}: expected {expected}, found {last:?}");
    }

    /// Waits until the next offset of partition 0 is stored.
    pub(crate) fn expect_position(&mut self, next_offset: i64) {
        let topic = self.topic.clone();
        let sql = format!(
            "select next_offset from availability_offset where topic = '{topic}' and partition = 0"
        );
        self.expect(&sql, next_offset);
    }

    /// The offsets of the domain's rows, in order of `id`.
    pub(crate) fn offsets(&mut self) -> Vec<i64> {
        let sql = format!("select topic_offset from {} order by id", self.table());
        self.database.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// The rows as `time offset phrase`, in the order of events.
    pub(crate) fn history(&mut self) -> Vec<String> {
        let sql = format!(
            "select event_time || ' ' || topic_offset || ' ' || phrase from {} \
             order by event_time, topic_offset",
            self.table()
        );
        self.database.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// A recorder of the domain.
    pub(crate) fn recorder(&self) -> Recorder {
        self.recorder_with(&[])
    }

    /// A recorder of the domain. `variables` add to the default variables or replace them.
    pub(crate) fn recorder_with(&self, variables: &[(&str, &str)]) -> Recorder {
        let mut all = self.variables(variables);
        all.insert(0, ("RUST_LOG".to_owned(), "warn,recorder=info,common=info".to_owned()));
        let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Recorder::start(&all)
    }

    /// A recorder of the domain in this process, with timings for tests.
    pub(crate) fn recorder_in_process(
        &self,
        timings: Timings,
        variables: &[(&str, &str)],
    ) -> InProcessRecorder {
        let variables = self.variables(variables);
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let settings = match settings::parse([], &Environment::from_variables(&variables)).unwrap()
        {
            Action::Record(settings) => *settings,
            other => panic!("{other:?}"),
        };
        let (stopper, stop) = stop::pair();
        let thread = thread::spawn(move || recorder::record(settings, timings, &stop).unwrap());
        InProcessRecorder { stopper, thread }
    }

    /// The variables of a recorder of the domain. `others` take precedence.
    fn variables(&self, others: &[(&str, &str)]) -> Vec<(String, String)> {
        let ca = self.services.postgres_ca.display().to_string();
        let own = [
            ("DOMAIN", self.domain.as_str()),
            ("KAFKA", self.services.kafka_plain.as_str()),
            ("POSTGRES", self.uri.as_str()),
            ("PGCA", ca.as_str()),
            ("TOPIC_PREFIX", self.prefix.as_str()),
        ];
        let own = own.iter().filter(|(name, _)| others.iter().all(|(other, _)| other != name));
        own.chain(others).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }
}

/// A recorder in a thread of the test process.
pub(crate) struct InProcessRecorder {
    stopper: Stopper,
    thread: thread::JoinHandle<()>,
}

impl InProcessRecorder {
    pub(crate) fn stop(self) {
        drop(self.stopper);
        self.thread.join().unwrap();
    }
}

/// A recorder in a separate process, which is killed when this is dropped.
pub(crate) struct Recorder {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_recorder"))
            .env_clear()
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let shared_log = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("recorder: {line}");
                let mut log = shared_log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log, reader: Some(reader) }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log contains a text.
    pub(crate) fn expect_log(&self, text: &str) {
        eventually(text, || self.log().contains(text).then_some(()));
    }

    /// Sends a signal, given by name.
    pub(crate) fn signal(&self, name: &str) {
        assert!(testkit::program::send_signal(name, self.child.id()));
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the end. Returns the exit status, the time until the end, and
    /// the log.
    pub(crate) fn stop(self) -> (ExitStatus, Duration, String) {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for the end of a recorder that was asked to stop.
    pub(crate) fn ended(mut self) -> (ExitStatus, Duration, String) {
        let start = Instant::now();
        let status = eventually("end", || self.child.try_wait().unwrap());
        let lasted = start.elapsed();
        // The reader may not have read the last lines yet.
        self.reader.take().map(thread::JoinHandle::join);
        (status, lasted, self.log())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_millis() as i64
}

/// A healthy result at this second.
pub(crate) fn ok(second: i64) -> Vec<u8> {
    result(second, "sydney", "https://a.example/", "ok")
}

/// A failure at this second.
pub(crate) fn failed(second: i64) -> Vec<u8> {
    result(second, "sydney", "https://a.example/", "forbidden")
}

/// A result.
pub(crate) fn result(second: i64, from: &str, url: &str, phrase: &str) -> Vec<u8> {
    Record {
        from: from.into(),
        url: url.into(),
        timestamp: second as f64 + 0.5,
        status: Status::Responsive,
        phrase: phrase.into(),
        dns_ms: Some(3),
        response_ms: Some(40),
        detail: None,
        offset: -1,
        extra: common::record::Extra::default(),
    }
    .encode()
}
