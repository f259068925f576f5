//! The notation in which messages are written down.
//!
//! `name: Type [versions] = default` per field, as in Kafka's own definitions: a version outside
//! the range neither carries nor reads the field, which then has its default. `null [versions]`
//! names those in which a field that can be null may be; without it, all of them. `@tags` lists
//! the tagged fields of flexible versions; one that has its default is not written.

macro_rules! default_value {
    () => {
        Default::default()
    };
    ($value:expr) => {
        $value
    };
}

macro_rules! messages {
    ($(
        $(#[$meta:meta])*
        struct $name:ident {
            $($field:ident: $type:ty [$($range:tt)+] $(null [$($null:tt)+])? $(= $default:expr)?,)*
            $(@tags {
                $($tag:literal $tfield:ident: $ttype:ty [$($trange:tt)+] $(= $tdefault:expr)?,)*
            })?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub struct $name {
            $(pub $field: $type,)*
            $($(pub $tfield: $ttype,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: default_value!($($default)?),)*
                    $($($tfield: default_value!($($tdefault)?),)*)?
                }
            }
        }

        impl $crate::codec::wire::Wire for $name {
            #[allow(unused_mut, unused_variables, clippy::redundant_closure_call)]
            fn decode(
                r: &mut $crate::codec::wire::Reader,
                ctx: $crate::codec::wire::Ctx,
            ) -> Result<Self, $crate::codec::wire::CodecError> {
                let mut message = Self::default();
                $(if ($($range)+).contains(&ctx.version) {
                    message.$field = $crate::codec::wire::Wire::decode(r, ctx)?;
                    $(if !($($null)+).contains(&ctx.version) && message.$field.is_null() {
                        return Err($crate::codec::wire::CodecError::Null);
                    })?
                })*
                r.tags(ctx, |tag, r| {
                    $($(if tag == $tag && ($($trange)+).contains(&ctx.version) {
                        message.$tfield = $crate::codec::wire::Wire::decode(r, ctx)?;
                        return Ok(true);
                    })*)?
                    Ok(false)
                })?;
                Ok(message)
            }

            #[allow(unused_mut, unused_variables)]
            fn encode(
                &self,
                w: &mut $crate::codec::wire::Writer,
                ctx: $crate::codec::wire::Ctx,
            ) {
                $(if ($($range)+).contains(&ctx.version) {
                    self.$field.encode(w, ctx);
                    $(if !($($null)+).contains(&ctx.version) && self.$field.is_null() {
                        w.fail($crate::codec::wire::CodecError::Null);
                    })?
                })*
                let mut tagged = Vec::new();
                $($(
                    let default: $ttype = default_value!($($tdefault)?);
                    if ($($trange)+).contains(&ctx.version) && self.$tfield != default {
                        let mut field = $crate::codec::wire::Writer::default();
                        self.$tfield.encode(&mut field, ctx);
                        tagged.push(($tag, field));
                    }
                )*)?
                w.tags(ctx, tagged);
            }

            fn errors(&self, _field: &str, note: &mut dyn FnMut(i16)) {
                $(self.$field.errors(stringify!($field), note);)*
                $($(self.$tfield.errors(stringify!($tfield), note);)*)?
            }

            fn min_bytes(ctx: $crate::codec::wire::Ctx) -> usize {
                let mut bytes = usize::from(ctx.flexible);
                $(if ($($range)+).contains(&ctx.version) {
                    bytes += <$type as $crate::codec::wire::Wire>::min_bytes(ctx);
                })*
                bytes.max(1)
            }
        }

        #[cfg(test)]
        impl $crate::codec::sample::Sample for $name {
            #[allow(unused_variables)]
            fn sample(
                g: &mut $crate::codec::sample::Gen,
                ctx: $crate::codec::wire::Ctx,
            ) -> Self {
                let mut message = Self::default();
                $(if ($($range)+).contains(&ctx.version) {
                    message.$field = $crate::codec::sample::Sample::sample(g, ctx);
                    $(while !($($null)+).contains(&ctx.version)
                        && $crate::codec::wire::Wire::is_null(&message.$field)
                    {
                        message.$field = $crate::codec::sample::Sample::sample(g, ctx);
                    })?
                })*
                $($(if ($($trange)+).contains(&ctx.version) && ctx.flexible && g.below(2) == 0 {
                    message.$tfield = $crate::codec::sample::Sample::sample(g, ctx);
                })*)?
                message
            }
        }
    )*};
}

/// One row per API: `Name = key, advertised minimum, served versions, first flexible version`.
macro_rules! apis {
    ($($name:ident = $key:literal, $advertised:literal, $min:literal..=$max:literal, $flexible:expr,
        $request:ident, $response:ident;)*) => {
        /// The APIs served.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum ApiKey {
            $($name = $key,)*
        }

        /// Every API served, by key: ApiVersions answers from it and dispatch checks it.
        pub const TABLE: &[Api] = &[$(Api {
            key: ApiKey::$name,
            advertised_min: $advertised,
            min: $min,
            max: $max,
            flexible_from: $flexible,
        },)*];

        /// The body of a request.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum RequestBody {
            $($name($request),)*
        }

        /// The body of a response.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum ResponseBody {
            $($name($response),)*
        }

        #[cfg(test)]
        impl RequestBody {
            pub(crate) fn sample(
                key: ApiKey,
                g: &mut $crate::codec::sample::Gen,
                ctx: Ctx,
            ) -> Self {
                use $crate::codec::sample::Sample;
                match key {
                    $(ApiKey::$name => Self::$name(Sample::sample(g, ctx)),)*
                }
            }
        }

        #[cfg(test)]
        impl ResponseBody {
            pub(crate) fn sample(
                key: ApiKey,
                g: &mut $crate::codec::sample::Gen,
                ctx: Ctx,
            ) -> Self {
                use $crate::codec::sample::Sample;
                match key {
                    $(ApiKey::$name => Self::$name(Sample::sample(g, ctx)),)*
                }
            }
        }

        impl RequestBody {
            /// Which API this is.
            pub fn key(&self) -> ApiKey {
                match self {
                    $(Self::$name(_) => ApiKey::$name,)*
                }
            }

            /// Reads the body of a request.
            pub fn decode(key: ApiKey, r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
                Ok(match key {
                    $(ApiKey::$name => Self::$name(Wire::decode(r, ctx)?),)*
                })
            }

            /// Writes the body of a request.
            pub fn encode(&self, w: &mut Writer, ctx: Ctx) {
                match self {
                    $(Self::$name(body) => body.encode(w, ctx),)*
                }
            }
        }

        impl ResponseBody {
            /// A response of that API in which every field has its default.
            pub fn empty(key: ApiKey) -> Self {
                match key {
                    $(ApiKey::$name => Self::$name(Default::default()),)*
                }
            }

            /// Which API this is.
            pub fn key(&self) -> ApiKey {
                match self {
                    $(Self::$name(_) => ApiKey::$name,)*
                }
            }

            /// Reads the body of a response.
            pub fn decode(key: ApiKey, r: &mut Reader, ctx: Ctx) -> Result<Self, CodecError> {
                Ok(match key {
                    $(ApiKey::$name => Self::$name(Wire::decode(r, ctx)?),)*
                })
            }

            /// Writes the body of a response.
            pub fn encode(&self, w: &mut Writer, ctx: Ctx) {
                match self {
                    $(Self::$name(body) => body.encode(w, ctx),)*
                }
            }

            /// Names every error code in it, also those that say there is none.
            pub fn errors(&self, note: &mut dyn FnMut(i16)) {
                match self {
                    $(Self::$name(body) => body.errors("", note),)*
                }
            }
        }

        $(
            impl From<$request> for RequestBody {
                fn from(body: $request) -> Self {
                    Self::$name(body)
                }
            }

            impl From<$response> for ResponseBody {
                fn from(body: $response) -> Self {
                    Self::$name(body)
                }
            }
        )*
    };
}
