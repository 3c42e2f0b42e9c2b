//! A broker with scripted replies: lost responses, cut frames, hostile bytes and errors that a real
//! broker does not send on request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_client::{BrokerAddress, KafkaSettings, Security, Uuid};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::*;
use kafka_protocol::messages::produce_response::*;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

/// The reaction of the broker to one request.
pub(crate) enum ScriptedReply {
    /// Send this response.
    Answer(Vec<u8>),
    /// Close the connection without a response.
    Close,
    /// Send nothing and keep the connection open.
    Silence,
    /// Send these bytes without a frame, then close the connection.
    Raw(Vec<u8>),
    /// Send the response byte by byte, with this many milliseconds between.
    Dribble(Vec<u8>, u64),
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) body: Bytes,
    pub(crate) port: u16,
}

type Script = Arc<Mutex<dyn FnMut(&ReceivedRequest) -> ScriptedReply + Send>>;

pub(crate) struct ScriptedBroker {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<ReceivedRequest>>>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedBroker {
    pub(crate) fn start(
        script: impl FnMut(&ReceivedRequest) -> ScriptedReply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(Mutex::new(script));
        let (accepting, seen_by) = (listener.try_clone().unwrap(), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = accepting.accept() {
                let mut first = [0; 1];
                // `stop` opens a connection that sends only this byte.
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

    pub(crate) fn settings(&self) -> KafkaSettings {
        let address = BrokerAddress { host: "127.0.0.1".to_owned(), port: self.port };
        let mut settings = KafkaSettings::new(vec![address], Security::Plain);
        settings.connect_timeout_ms = 2_000;
        settings.request_timeout_ms = 2_000;
        settings
    }

    /// Returns the requests with this API key so far.
    pub(crate) fn seen(&self, key: ApiKey) -> Vec<ReceivedRequest> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|request| request.key == key).cloned().collect()
    }

    /// Returns the batches of partition 0 of `topic`, in the order of their arrival.
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

    /// Stops the broker after all clients have disconnected.
    pub(crate) fn stop(mut self) {
        let address = self.listener.local_addr().unwrap();
        TcpStream::connect(address).unwrap().write_all(b"!").unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: TcpStream, port: u16, script: &Script, seen: &Mutex<Vec<ReceivedRequest>>) {
    loop {
        let mut length = [0; 4];
        if stream.read_exact(&mut length).is_err() {
            return;
        }
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        let mut body = Bytes::from(frame);
        let header = RequestHeader::decode(&mut body, 2).unwrap();
        let request = ReceivedRequest {
            key: ApiKey::try_from(header.request_api_key).unwrap(),
            version: header.request_api_version,
            correlation_id: header.correlation_id,
            body,
            port,
        };
        seen.lock().unwrap().push(request.clone());
        let reply = (script.lock().unwrap())(&request);
        match reply {
            ScriptedReply::Answer(body) => {
                let frame = request.frame(&body);
                if stream.write_all(&frame).is_err() {
                    return;
                }
            }
            ScriptedReply::Close => return,
            ScriptedReply::Silence => {}
            ScriptedReply::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            ScriptedReply::Dribble(body, pause_ms) => {
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

impl ReceivedRequest {
    /// Returns the response with its frame.
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

    /// The response of a broker that leads partition 0 of every topic.
    pub(crate) fn good_answer(&self) -> Vec<u8> {
        match self.key {
            ApiKey::ApiVersions => api_versions(&API_VERSIONS, self.version),
            ApiKey::Metadata => self.metadata(&|_| self.port),
            ApiKey::InitProducerId => {
                let id = i64::from(self.correlation_id) * 1000;
                encoded(&InitProducerIdResponse::default().with_producer_id(ProducerId(id)), self)
            }
            ApiKey::Produce => self.produce_answer(0),
            other => panic!("no answer to {other:?} in the script"),
        }
    }

    /// Like [`ReceivedRequest::good_answer`], but with `host` as the broker's host.
    pub(crate) fn good_answer_as_host(&self, host: &'static str) -> Vec<u8> {
        match self.key {
            ApiKey::Metadata => self.metadata_with_host(host, &|_| self.port),
            _ => self.good_answer(),
        }
    }

    /// Metadata of every requested topic. `leader` returns the port of the topic's leader; the id
    /// of a broker is its port.
    pub(crate) fn metadata(&self, leader: &dyn Fn(&str) -> u16) -> Vec<u8> {
        self.metadata_with_host("127.0.0.1", leader)
    }

    fn metadata_with_host(&self, host: &'static str, leader: &dyn Fn(&str) -> u16) -> Vec<u8> {
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

    /// A Produce response with the same error code (0: none) for every topic.
    pub(crate) fn produce_answer(&self, code: i16) -> Vec<u8> {
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

pub(crate) fn encoded(response: &impl Encodable, request: &ReceivedRequest) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    response.encode(&mut bytes, request.version).unwrap();
    bytes.to_vec()
}

/// The versions that Kafka 4.4 advertises.
const API_VERSIONS: [(ApiKey, i16, i16); 9] = [
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

/// Producer id and base sequence of a batch.
pub(crate) fn identity(batch: &Bytes) -> (i64, i32) {
    ((&batch[43..]).get_i64(), (&batch[53..]).get_i32())
}
