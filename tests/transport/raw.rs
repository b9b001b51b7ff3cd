//! What a link never does by itself: a bare QUIC connection with whatever certificate and protocol name.

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, ConnectionError, RecvStream, SendStream, ServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use starling::transport::authority::Issued;

use super::*;

pub(super) struct Raw {
    endpoint: quinn::Endpoint,
}

fn parts(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap())
}

fn endpoint(server: Option<ServerConfig>) -> quinn::Endpoint {
    let socket = UdpSocket::bind(ANY_PORT).unwrap();
    let runtime = Arc::new(starling::transport::runtime::AsyncStd);
    quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime).unwrap()
}

impl Raw {
    pub(super) fn client(alpn: &[u8]) -> Raw {
        let issued = AUTHORITY.issue_client("raw", Role::Admin).unwrap();
        Raw::new(&issued, AUTHORITY.certificate_pem(), alpn)
    }

    pub(super) fn new(issued: &Issued, trusted: &str, alpn: &[u8]) -> Raw {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
        let (chain, key) = parts(issued);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let mut endpoint = endpoint(None);
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        endpoint.set_default_client_config(config);
        Raw { endpoint }
    }

    pub(super) fn server(issued: &Issued, alpn: &[u8]) -> Raw {
        let (chain, key) = parts(issued);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = endpoint(Some(config));
        let accepting = endpoint.clone();
        async_std::task::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                async_std::task::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        connection.closed().await;
                    }
                });
            }
        });
        Raw { endpoint }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(super) async fn connection(&self, to: SocketAddr) -> Result<Connection, ConnectionError> {
        self.endpoint.connect(to, "node.starling.internal").unwrap().await
    }

    /// A connection that has greeted like a dialler.
    pub(super) async fn greeted(&self, to: SocketAddr) -> (Connection, SendStream, RecvStream) {
        let connection = self.connection(to).await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&[0; 4]).await.unwrap();
        let mut greeting = [1; 4];
        receive.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, [0; 4]);
        (connection, send, receive)
    }
}
