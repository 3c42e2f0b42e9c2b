//! A broker that does what it is told: for lost answers, half frames, hostile
//! bytes and refusals that no real broker can be brought to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_client::{Address, Security, Settings, Uuid};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::*;
use kafka_protocol::messages::produce_response::*;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

/// What is done with one request.
pub(crate) enum Reply {
    /// This answer.
    Answer(Vec<u8>),
    /// The connection is closed with nothing said.
    Close,
    /// Nothing, with the connection open.
    Silence,
    /// These bytes, frame and all, and the connection is closed.
    Raw(Vec<u8>),
    /// The answer one byte at a time, with this many milliseconds between.
    Dribble(Vec<u8>, u64),
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) body: Bytes,
    pub(crate) port: u16,
}

type Script = Arc<Mutex<dyn FnMut(&Request) -> Reply + Send>>;

pub(crate) struct Broker {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    pub(crate) fn start(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(Mutex::new(script));
        let (accepting, seen_by) = (listener.try_clone().unwrap(), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = accepting.accept() {
                let mut first = [0; 1];
                // The end is told by a connection that sends nothing but this.
                if stream.peek(&mut first).is_ok_and(|read| read == 1) && first[0] == b'!' {
                    break;
                }
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen_by));
                connections.push(std::thread::spawn(move || serve(stream, port, &script, &seen)));
            }
            connections.into_iter().for_each(|connection| connection.join().unwrap());
        });
        Self { port, seen, listener, thread: Some(thread) }
    }

    pub(crate) fn settings(&self) -> Settings {
        let address = Address { host: "127.0.0.1".to_owned(), port: self.port };
        let mut settings = Settings::new(vec![address], Security::Plain);
        settings.connect_timeout_ms = 2_000;
        settings.request_timeout_ms = 2_000;
        settings
    }

    /// The requests of a kind so far.
    pub(crate) fn seen(&self, key: ApiKey) -> Vec<Request> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|request| request.key == key).cloned().collect()
    }

    /// The batches of partition 0 of `topic`, in the order in which they came.
    pub(crate) fn batches(&self, topic: &str) -> Vec<Bytes> {
        self.seen(ApiKey::Produce)
            .into_iter()
            .flat_map(|request| {
                let mut body = request.body;
                ProduceRequest::decode(&mut body, request.version).unwrap().topic_data
            })
            .filter(|data| data.name.as_str() == topic)
            .map(|data| data.partition_data[0].records.clone().unwrap())
            .collect()
    }

    /// Ends it once every client is gone.
    pub(crate) fn stop(mut self) {
        let address = self.listener.local_addr().unwrap();
        TcpStream::connect(address).unwrap().write_all(b"!").unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: TcpStream, port: u16, script: &Script, seen: &Mutex<Vec<Request>>) {
    loop {
        let mut length = [0; 4];
        if stream.read_exact(&mut length).is_err() {
            return;
        }
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        let mut body = Bytes::from(frame);
        let header = RequestHeader::decode(&mut body, 2).unwrap();
        let request = Request {
            key: ApiKey::try_from(header.request_api_key).unwrap(),
            version: header.request_api_version,
            correlation_id: header.correlation_id,
            body,
            port,
        };
        seen.lock().unwrap().push(request.clone());
        let reply = (script.lock().unwrap())(&request);
        match reply {
            Reply::Answer(body) => {
                let frame = request.frame(&body);
                if stream.write_all(&frame).is_err() {
                    return;
                }
            }
            Reply::Close => return,
            Reply::Silence => {}
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Reply::Dribble(body, pause_ms) => {
                for byte in request.frame(&body) {
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(pause_ms));
                }
            }
        }
    }
}

impl Request {
    /// The whole answer as it goes over the wire.
    pub(crate) fn frame(&self, body: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        let flexible = !matches!(self.key, ApiKey::ApiVersions | ApiKey::SaslHandshake);
        frame.put_u32(u32::try_from(4 + usize::from(flexible) + body.len()).unwrap());
        frame.put_i32(self.correlation_id);
        if flexible {
            frame.put_u8(0);
        }
        frame.put_slice(body);
        frame.to_vec()
    }

    /// What a good broker that leads partition 0 of every topic says.
    pub(crate) fn good_answer(&self) -> Vec<u8> {
        match self.key {
            ApiKey::ApiVersions => api_versions(&ALL, self.version),
            ApiKey::Metadata => self.metadata(&|_| self.port),
            ApiKey::InitProducerId => {
                let id = i64::from(self.correlation_id) * 1000;
                encoded(&InitProducerIdResponse::default().with_producer_id(ProducerId(id)), self)
            }
            ApiKey::Produce => self.produced(0),
            other => panic!("no answer to {other:?} in the script"),
        }
    }

    /// The same of a broker that tells of itself as of another host.
    pub(crate) fn good_answer_of(&self, host: &'static str) -> Vec<u8> {
        match self.key {
            ApiKey::Metadata => self.metadata_of(host, &|_| self.port),
            _ => self.good_answer(),
        }
    }

    /// Every topic asked for, led by the broker at the port that `leader` gives;
    /// a broker's id is its port.
    pub(crate) fn metadata(&self, leader: &dyn Fn(&str) -> u16) -> Vec<u8> {
        self.metadata_of("127.0.0.1", leader)
    }

    fn metadata_of(&self, host: &'static str, leader: &dyn Fn(&str) -> u16) -> Vec<u8> {
        let mut body = self.body.clone();
        let request = MetadataRequest::decode(&mut body, self.version).unwrap();
        let mut ports = vec![self.port];
        let mut topics = Vec::new();
        for topic in request.topics.unwrap_or_default() {
            let port = leader(topic.name.as_ref().unwrap().as_str());
            ports.push(port);
            let partition =
                MetadataResponsePartition::default().with_leader_id(BrokerId(port.into()));
            topics.push(
                MetadataResponseTopic::default()
                    .with_name(topic.name)
                    .with_topic_id(Uuid::from_u128(7))
                    .with_partitions(vec![partition]),
            );
        }
        let brokers = ports.into_iter().map(|port| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(port.into()))
                .with_host(StrBytes::from_static_str(host))
                .with_port(port.into())
        });
        let response =
            MetadataResponse::default().with_brokers(brokers.collect()).with_topics(topics);
        encoded(&response, self)
    }

    /// The same error code (0: none) for every topic of a Produce.
    pub(crate) fn produced(&self, code: i16) -> Vec<u8> {
        let mut body = self.body.clone();
        let request = ProduceRequest::decode(&mut body, self.version).unwrap();
        let answers = request.topic_data.into_iter().map(|data| {
            let partition =
                PartitionProduceResponse::default().with_error_code(code).with_base_offset(5);
            TopicProduceResponse::default()
                .with_name(data.name)
                .with_partition_responses(vec![partition])
        });
        encoded(&ProduceResponse::default().with_responses(answers.collect()), self)
    }
}

pub(crate) fn encoded(response: &impl Encodable, request: &Request) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    response.encode(&mut bytes, request.version).unwrap();
    bytes.to_vec()
}

/// As wide as a Kafka 4.4 says.
const ALL: [(ApiKey, i16, i16); 9] = [
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 11),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::SaslHandshake, 0, 1),
    (ApiKey::SaslAuthenticate, 0, 2),
];

pub(crate) fn api_versions(apis: &[(ApiKey, i16, i16)], version: i16) -> Vec<u8> {
    let keys = apis.iter().map(|(key, min, max)| {
        ApiVersion::default()
            .with_api_key(*key as i16)
            .with_min_version(*min)
            .with_max_version(*max)
    });
    let response = ApiVersionsResponse::default().with_api_keys(keys.collect());
    let mut bytes = BytesMut::new();
    response.encode(&mut bytes, version).unwrap();
    bytes.to_vec()
}

/// Producer id and first sequence of a batch.
pub(crate) fn identity(batch: &Bytes) -> (i64, i32) {
    ((&batch[43..]).get_i64(), (&batch[53..]).get_i32())
}
