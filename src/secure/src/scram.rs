//! SCRAM (RFC 5802, RFC 7677) as Kafka's brokers speak it: verifiers and the server's side.
//!
//! Kafka does not prepare names and passwords (SASLprep); neither does this. Channel binding is
//! not offered.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::limits::{MAX_ITERATIONS, MAX_SALT, MIN_ITERATIONS};

/// The hash of a SCRAM exchange. The numbers are those of Kafka's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Hash {
    /// SCRAM-SHA-256, number 1.
    Sha256,
    /// SCRAM-SHA-512, number 2.
    Sha512,
}

impl Hash {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The number in Kafka's messages.
    pub fn number(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    /// The hash of that number.
    pub fn of_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|h| h.number() == number)
    }

    /// The SASL mechanism's name.
    pub fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// Bytes of a digest.
    pub fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec()
    }

    fn salted(self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut out = vec![0; self.bytes()];
        pbkdf2::derive(algorithm, iterations, salt, password, &mut out);
        out
    }
}

/// Why a verifier cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVerifier {
    /// Below [`MIN_ITERATIONS`].
    #[error("Too few iterations")]
    TooFew,
    /// Above [`MAX_ITERATIONS`].
    #[error("Too many iterations")]
    TooMany,
    /// Empty, or longer than [`MAX_SALT`].
    #[error("the salt must have 1 to {MAX_SALT} bytes")]
    Salt,
    /// A key is not as long as a digest.
    #[error("a key has the wrong length")]
    Key,
}

/// What is kept of a password. It lets a server check a client, and does not let anybody log in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations)", self.iterations)
    }
}

fn check(salt: &[u8], iterations: u32) -> Result<NonZeroU32, BadVerifier> {
    if iterations < MIN_ITERATIONS {
        return Err(BadVerifier::TooFew);
    }
    if iterations > MAX_ITERATIONS {
        return Err(BadVerifier::TooMany);
    }
    if salt.is_empty() || salt.len() > MAX_SALT {
        return Err(BadVerifier::Salt);
    }
    NonZeroU32::new(iterations).ok_or(BadVerifier::TooFew)
}

impl Verifier {
    /// The verifier of a password, with a salt of its own. Takes milliseconds.
    pub fn of_password(hash: Hash, password: &str) -> Self {
        let (salt, iterations) =
            (secret_bytes(20), NonZeroU32::MIN.saturating_add(MIN_ITERATIONS - 1));
        let salted = hash.salted(password.as_bytes(), &salt, iterations);
        Self::of_parts(hash, salt, iterations.get(), &salted)
    }

    /// The verifier of a salted password, as Kafka's AlterUserScramCredentials carries it.
    pub fn of_salted(
        hash: Hash,
        salt: Vec<u8>,
        iterations: u32,
        salted: &[u8],
    ) -> Result<Self, BadVerifier> {
        check(&salt, iterations)?;
        Ok(Self::of_parts(hash, salt, iterations, salted))
    }

    /// A verifier from its parts, as [`Self::parts`] gives them.
    pub fn of_keys(
        hash: Hash,
        salt: Vec<u8>,
        iterations: u32,
        stored_key: Vec<u8>,
        server_key: Vec<u8>,
    ) -> Result<Self, BadVerifier> {
        check(&salt, iterations)?;
        if stored_key.len() != hash.bytes() || server_key.len() != hash.bytes() {
            return Err(BadVerifier::Key);
        }
        Ok(Self { salt, iterations, stored_key, server_key })
    }

    fn of_parts(hash: Hash, salt: Vec<u8>, iterations: u32, salted: &[u8]) -> Self {
        let client_key = hash.hmac(salted, b"Client Key");
        let stored_key = digest::digest(hash.digest(), &client_key).as_ref().to_vec();
        let server_key = hash.hmac(salted, b"Server Key");
        Self { salt, iterations, stored_key, server_key }
    }

    /// Iterations.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Salt, stored key and server key.
    pub fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        (&self.salt, &self.stored_key, &self.server_key)
    }

    /// Whether this is the password. Takes milliseconds.
    pub fn is_password(&self, hash: Hash, password: &str) -> bool {
        let Ok(iterations) = check(&self.salt, self.iterations) else { return false };
        let salted = hash.salted(password.as_bytes(), &self.salt, iterations);
        let other = Self::of_parts(hash, Vec::new(), 0, &salted);
        other.stored_key.ct_eq(&self.stored_key).into()
    }
}

/// Bytes that nobody can guess. Panics when the system has no randomness: nothing is safe then.
pub fn secret_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// The exchange failed. The reason is for logs only: a client learns nothing from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub &'static str);

/// A client's first message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFirst<'a> {
    gs2: &'a str,
    bare: &'a str,
    pub(crate) authorization: String,
    pub(crate) user: String,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    /// `n,[a=authzid],n=user,r=nonce[,extensions]`.
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Refused> {
        const BAD: Refused = Refused("invalid SCRAM client first message");
        let text = std::str::from_utf8(message).map_err(|_| BAD)?;
        let (flag, rest) = text.split_once(',').ok_or(BAD)?;
        if flag != "n" && flag != "y" {
            return Err(Refused("channel binding is not offered"));
        }
        let (authorization, bare) = rest.split_once(',').ok_or(BAD)?;
        let gs2 = text.get(..text.len() - bare.len()).ok_or(BAD)?;
        let authorization = match authorization {
            "" => String::new(),
            name => sasl_name(name.strip_prefix("a=").ok_or(BAD)?).ok_or(BAD)?,
        };
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|f| f.strip_prefix("n=")).ok_or(BAD)?;
        let nonce = fields.next().and_then(|f| f.strip_prefix("r=")).ok_or(BAD)?;
        let user = sasl_name(user).filter(|name| !name.is_empty()).ok_or(BAD)?;
        if nonce.is_empty() || !nonce.bytes().all(|b| (0x21..0x7f).contains(&b)) {
            return Err(BAD);
        }
        Ok(Self { gs2, bare, authorization, user, nonce })
    }
}

/// RFC 5802: `=2C` and `=3D` stand for comma and equals sign.
fn sasl_name(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let rest = part.strip_prefix("2C").map(|rest| (',', rest));
        let (sign, rest) = rest.or_else(|| part.strip_prefix("3D").map(|rest| ('=', rest)))?;
        name.push(sign);
        name.push_str(rest);
    }
    Some(name)
}

/// An exchange after the server's first message.
pub(crate) struct Exchange {
    hash: Hash,
    verifier: Verifier,
    gs2: String,
    client_nonce: String,
    /// The client's nonce and then the server's.
    nonce: String,
    /// The messages so far, as the proof covers them.
    transcript: String,
}

impl Exchange {
    /// The server's first message, and the exchange that goes on after it.
    pub(crate) fn begin(
        hash: Hash,
        first: &ClientFirst<'_>,
        verifier: Verifier,
        nonce: &str,
    ) -> (Vec<u8>, Self) {
        let nonce = format!("{}{nonce}", first.nonce);
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let transcript = format!("{},{server_first}", first.bare);
        let gs2 = first.gs2.to_owned();
        let client_nonce = first.nonce.to_owned();
        (server_first.into_bytes(), Self { hash, verifier, gs2, client_nonce, nonce, transcript })
    }

    /// Checks the client's final message; returns the server's.
    pub(crate) fn finish(self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        const BAD: Refused = Refused("invalid SCRAM client final message");
        let text = std::str::from_utf8(message).map_err(|_| BAD)?;
        let (unproven, proof) = text.rsplit_once(",p=").ok_or(BAD)?;
        let proof = BASE64.decode(proof).map_err(|_| BAD)?;
        let mut fields = unproven.split(',');
        let binding = fields.next().and_then(|f| f.strip_prefix("c=")).ok_or(BAD)?;
        let nonce = fields.next().and_then(|f| f.strip_prefix("r=")).ok_or(BAD)?;
        if BASE64.decode(binding).map_err(|_| BAD)? != self.gs2.as_bytes() {
            return Err(BAD);
        }
        // librdkafka before 2.6.1, and so kcat of Debian 12, puts its own nonce in front once more.
        // Kafka 3.8.1 lets it, Kafka 4.0 does not. The server's nonce is there and signed, which
        // is all that keeps an old exchange from being played again.
        let head = nonce.strip_suffix(self.nonce.as_str());
        if !head.is_some_and(|head| head.is_empty() || head == self.client_nonce) {
            return Err(Refused("invalid client nonce in the final client message"));
        }
        let signed = format!("{},{unproven}", self.transcript);
        let signature = self.hash.hmac(&self.verifier.stored_key, signed.as_bytes());
        if proof.len() != signature.len() {
            return Err(BAD);
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let stored_key = digest::digest(self.hash.digest(), &client_key);
        if !bool::from(stored_key.as_ref().ct_eq(&self.verifier.stored_key)) {
            return Err(Refused("invalid client credentials"));
        }
        let signature = self.hash.hmac(&self.verifier.server_key, signed.as_bytes());
        Ok(format!("v={}", BASE64.encode(signature)).into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677.
    fn rfc() -> (Verifier, &'static [u8], &'static str) {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let iterations = NonZeroU32::new(4096).unwrap();
        let salted = Hash::Sha256.salted(b"pencil", &salt, iterations);
        let verifier = Verifier::of_salted(Hash::Sha256, salt, 4096, &salted).unwrap();
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        (verifier, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", nonce)
    }

    #[test]
    fn the_example_of_the_rfc_succeeds() {
        let (verifier, first, nonce) = rfc();
        let first = ClientFirst::parse(first).unwrap();
        assert_eq!(first.user, "user");
        let (told, exchange) = Exchange::begin(Hash::Sha256, &first, verifier, nonce);
        let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(String::from_utf8(told).unwrap(), expected);
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let done = exchange.finish(last).unwrap();
        assert_eq!(done, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn wrong_proofs_nonces_and_bindings_are_refused() {
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let wrong = [
            format!("c=biws,r={nonce},p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="),
            format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={proof}"),
            format!("c=eSws,r={nonce},p={proof}"),
            format!("c=biws,r={nonce},p="),
            format!("c=biws,r={nonce}"),
            String::new(),
        ];
        for last in wrong {
            let (verifier, first, nonce) = rfc();
            let first = ClientFirst::parse(first).unwrap();
            let (_, exchange) = Exchange::begin(Hash::Sha256, &first, verifier, nonce);
            assert!(exchange.finish(last.as_bytes()).is_err(), "{last}");
        }
    }

    #[test]
    fn a_client_may_repeat_its_own_nonce_and_nothing_else() {
        for (head, allowed) in [("", true), ("rOprNGfwEbeRWgbNEkqO", true), ("x", false)] {
            let (verifier, first, nonce) = rfc();
            let first = ClientFirst::parse(first).unwrap();
            let (told, exchange) = Exchange::begin(Hash::Sha256, &first, verifier, nonce);
            let unproven = format!("c=biws,r={head}rOprNGfwEbeRWgbNEkqO{nonce}");
            let told = String::from_utf8(told).unwrap();
            let signed = format!("n=user,r=rOprNGfwEbeRWgbNEkqO,{told},{unproven}");
            let salted = Hash::Sha256.salted(
                b"pencil",
                &exchange.verifier.salt,
                NonZeroU32::new(4096).unwrap(),
            );
            let key = Hash::Sha256.hmac(&salted, b"Client Key");
            let signature = Hash::Sha256.hmac(&exchange.verifier.stored_key, signed.as_bytes());
            let proof: Vec<u8> = key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
            let last = format!("{unproven},p={}", BASE64.encode(proof));
            assert_eq!(exchange.finish(last.as_bytes()).is_ok(), allowed, "{head}");
        }
    }

    #[test]
    fn names_are_unescaped_and_odd_first_messages_refused() {
        let first = ClientFirst::parse(b"n,a=x=2Cy,n=a=3Db=2Cc,r=abc,ext=1").unwrap();
        assert_eq!((first.user.as_str(), first.authorization.as_str()), ("a=b,c", "x,y"));
        let odd: [&[u8]; 8] = [
            b"p=tls-unique,,n=u,r=n",
            b"n,,n=,r=n",
            b"n,,n=u,r=",
            b"n,,n=u=2,r=n",
            b"n,,r=n,n=u",
            b"n,b,n=u,r=n",
            b"\xff",
            b"",
        ];
        for message in odd {
            assert!(ClientFirst::parse(message).is_err(), "{message:?}");
        }
    }

    #[test]
    fn a_verifier_knows_its_password_and_shows_nothing() {
        for hash in Hash::ALL {
            let verifier = Verifier::of_password(hash, "geheim");
            assert!(verifier.is_password(hash, "geheim"));
            assert!(!verifier.is_password(hash, "geheim "));
            assert_eq!(format!("{verifier:?}"), "Verifier(4096 iterations)");
            assert_ne!(verifier, Verifier::of_password(hash, "geheim"), "salts differ");
        }
    }

    #[test]
    fn weak_and_oversized_verifiers_are_refused() {
        let make = |iterations, salt: usize| {
            Verifier::of_salted(Hash::Sha256, vec![1; salt], iterations, &[2; 32]).map(drop)
        };
        assert_eq!(make(4095, 8), Err(BadVerifier::TooFew));
        assert_eq!(make(16_385, 8), Err(BadVerifier::TooMany));
        assert_eq!(make(4096, 0), Err(BadVerifier::Salt));
        assert_eq!(make(4096, 257), Err(BadVerifier::Salt));
        assert_eq!(make(8192, 8), Ok(()));
        let keys = Verifier::of_keys(Hash::Sha512, vec![1], 4096, vec![1; 32], vec![1; 64]);
        assert_eq!(keys, Err(BadVerifier::Key));
    }
}
