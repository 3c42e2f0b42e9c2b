//! Each flag is defined once: a list has its name, letter, variables, type, parser, default
//! and documentation. Everything else is derived from that list.
//!
//! # How to define flags
//!
//! [`flags!`](crate::flags) turns a list of flags into a struct:
//!
//! ```text
//! common::flags! {
//!     /// How results are written to PostgreSQL.
//!     pub(crate) struct WriteFlags {
//!         /// merge consecutive healthy records into one row
//!         switch smart('s') [SMART];
//!         /// URI of the database
//!         option postgres('p') [POSTGRES] secret;
//!         /// CA certificates of the server, a path or PEM text
//!         option pgca('g') [PGCA, GPCA];
//!         /// connections to PostgreSQL, 1 to 100
//!         option postgres_connections [POSTGRES_CONNECTIONS]: u64 =
//!             |setting| values::whole_number(setting, "connections", 1..=100), default "8";
//!     }
//! }
//! ```
//!
//! - `switch` takes no value, `option` takes one.
//! - `('s')` is the letter of the short form, and may be left out.
//! - `[PGCA, GPCA]` are the environment variables that win over the flag; an
//!   alias follows the name. `[]`: the flag has no variable.
//! - `secret` adds the `…_FILE` variable of each variable.
//! - `: type = parser` gives the type, and a function from [`SettingValue`] to it.
//!   Without it the value is a [`SettingValue`], for a parser that needs more than one flag.
//! - `default "8"` is parsed like the value of a user. `unset "the host's name"` describes
//!   the behaviour without a value if it is not a constant.
//!
//! The struct gets one method a flag. The method reads the variables and the flag,
//! and parses the value: `flags.postgres_connections(environment)?` is a `u64`, and
//! without a default an `Option<u64>`; `flags.smart(environment)?` is a `bool`.
//!
//! [`command!`](crate::command) composes such groups into a command, so that groups
//! can be shared by programs and subcommands:
//!
//! ```text
//! common::command! {
//!     /// Prints the SQL of the tables.
//!     pub(crate) struct SchemaCommand = "schema" {
//!         domains: DomainFlags,
//!         smart: SmartFlags,
//!     }
//! }
//! ```
//!
//! Without `= "schema"` it is the command that the program runs without a
//! subcommand. [`command_line::parse`](super::command_line::parse) parses it,
//! prints `--help` from its [`CommandSpec`], and tests of the documentation compare
//! their tables with the same [`CommandSpec`].

use super::{Environment, Origin, SettingName, SettingValue, UsageError};

/// The definition of one flag, without its parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagSpec {
    /// The flag with its hyphens, like `--topic-prefix`.
    pub long: &'static str,
    /// The letter of the short form.
    pub short: Option<char>,
    /// The environment variable that wins over the flag, and its aliases.
    pub variables: &'static [&'static str],
    /// Whether the flag has a value.
    pub kind: FlagKind,
    /// The default, or a description of the behaviour without a value.
    pub default: Option<&'static str>,
    /// The documentation without default and variables. May begin with a space.
    documentation: &'static str,
}

/// Whether a flag has a value, and where the value can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagKind {
    /// No value.
    Switch,
    /// A value.
    Value,
    /// A value that may also be in a file named by the `…_FILE` variable.
    Secret,
}

impl FlagSpec {
    /// A spec with the definition in [`flags!`](crate::flags).
    #[doc(hidden)]
    pub const fn new(
        long: &'static str,
        short: Option<char>,
        variables: &'static [&'static str],
        kind: FlagKind,
        default: Option<&'static str>,
        documentation: &'static str,
    ) -> Self {
        Self { long, short, variables, kind, default, documentation }
    }

    /// The documentation without default and variables.
    pub const fn documentation(&self) -> &'static str {
        self.documentation.trim_ascii()
    }

    /// All variables of the flag, including the variables that name a secret's file.
    pub fn all_variables(&self) -> Vec<String> {
        let files = self.variables.iter().filter(|_| self.kind == FlagKind::Secret);
        let files = files.map(|variable| format!("{variable}_FILE"));
        self.variables.iter().map(|variable| (*variable).to_owned()).chain(files).collect()
    }

    /// The names of the flag and its variables.
    pub fn name(&self) -> SettingName {
        SettingName { flag: self.long, variables: self.variables }
    }

    /// The value from the variables, from a secret's file or from the flag.
    ///
    /// # Errors
    /// See [`Environment::setting`] and [`Environment::secret`].
    pub fn read(
        &self,
        environment: &Environment<'_>,
        flag: Option<&String>,
    ) -> Result<Option<SettingValue>, UsageError> {
        match self.kind {
            FlagKind::Secret => environment.secret(self.name(), flag.cloned()),
            FlagKind::Switch | FlagKind::Value => environment.setting(self.name(), flag.cloned()),
        }
    }

    /// The default as the value of a user.
    pub fn default_value(&self) -> SettingValue {
        let value = self.default.unwrap_or_default().to_owned();
        SettingValue { value, origin: Origin::Flag(self.long) }
    }
}

/// Flags that belong together; made by [`flags!`](crate::flags).
pub trait FlagGroup: argh::FromArgs {
    /// The flags in the order of `--help`.
    const FLAGS: &'static [FlagSpec];
}

/// A command: a program, or one of its subcommands.
#[derive(Debug, Clone, Copy)]
pub struct CommandSpec {
    /// The name of the subcommand; empty for the program itself.
    pub name: &'static str,
    /// What the command does. May begin with a space.
    about: &'static str,
    /// The groups of its flags.
    pub groups: &'static [&'static [FlagSpec]],
}

impl CommandSpec {
    /// A spec with the definition in [`command!`](crate::command).
    #[doc(hidden)]
    pub const fn new(
        name: &'static str,
        about: &'static str,
        groups: &'static [&'static [FlagSpec]],
    ) -> Self {
        Self { name, about, groups }
    }

    /// What the command does.
    pub const fn about(&self) -> &'static str {
        self.about.trim_ascii()
    }

    /// The flags of the command, in the order of `--help`.
    pub fn flags(&self) -> impl Iterator<Item = &'static FlagSpec> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// The arguments that belong to one group of flags. All are `--flag value`, as
    /// [`command_line::parse`](super::command_line::parse) writes them.
    pub fn arguments_of<'a>(group: &[FlagSpec], arguments: &[&'a str]) -> Vec<&'a str> {
        arguments
            .chunks_exact(2)
            .filter(|argument| group.iter().any(|flag| flag.long == argument[0]))
            .flatten()
            .copied()
            .collect()
    }
}

/// A command with flags; made by [`command!`](crate::command).
pub trait CommandFlags: argh::FromArgs {
    /// Its name, documentation and flags.
    const SPEC: CommandSpec;
}

/// `--topic_prefix` with hyphens in place of underscores.
#[doc(hidden)]
pub const fn hyphenated<const LENGTH: usize>(name: &str) -> [u8; LENGTH] {
    let bytes = name.as_bytes();
    let mut hyphenated = [0; LENGTH];
    let mut index = 0;
    while index < LENGTH {
        hyphenated[index] = if bytes[index] == b'_' { b'-' } else { bytes[index] };
        index += 1;
    }
    hyphenated
}

/// The text of [`hyphenated`] bytes.
#[doc(hidden)]
pub const fn text(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // Only ASCII bytes were replaced.
        Err(_) => "",
    }
}

/// Defines flags; see [`settings::flags`](crate::settings::flags).
#[macro_export]
macro_rules! flags {
    (
        $(#[doc = $about:tt])+
        $visibility:vis struct $group:ident {
            $(
                $(#[doc = $documentation:tt])+
                $kind:ident $flag:ident $(($short:tt))? [$($variable:ident),*] $($secret:ident)?
                $(: $type:ty = $parser:expr)?
                $(, default $default:tt)?
                $(, unset $unset:tt)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(argh::FromArgs)]
        $visibility struct $group {
            $(
                $(#[doc = $documentation])+
                #[argh(option, description = "see the spec" $(, short = $short)?)]
                $visibility $flag: Option<String>,
            )+
        }

        impl $crate::settings::flags::FlagGroup for $group {
            const FLAGS: &'static [$crate::settings::flags::FlagSpec] = &[$(
                $crate::flags!(@spec $kind $flag [$($short)?] [$($variable)*] [$($secret)?]
                    [$($default)? $($unset)?] [$($documentation)+])
            ),+];
        }

        impl $group {$(
            $(#[doc = $documentation])+
            $visibility fn $flag(
                &self,
                environment: &$crate::settings::Environment<'_>,
            ) -> Result<
                $crate::flags!(@type $kind [$($type)?] [$($default)?]),
                $crate::settings::UsageError,
            > {
                const SPEC: $crate::settings::flags::FlagSpec =
                    $crate::flags!(@spec $kind $flag [$($short)?] [$($variable)*] [$($secret)?]
                        [$($default)? $($unset)?] [$($documentation)+]);
                $crate::flags!(@read (environment, self.$flag) $kind [$($type)?]
                    [$($parser)?] [$($default)?])
            }
        )+}
    };

    (@spec $kind:ident $flag:ident [$($short:tt)?] [$($variable:ident)*] [$($secret:ident)?]
        [$($default:tt)?] [$($documentation:tt)+]) => {{
        const NAME: &str = concat!("--", stringify!($flag));
        const LONG: [u8; NAME.len()] = $crate::settings::flags::hyphenated(NAME);
        $crate::settings::flags::FlagSpec::new(
            $crate::settings::flags::text(&LONG),
            $crate::flags!(@maybe [$($short)?]),
            &[$(stringify!($variable)),*],
            $crate::flags!(@kind $kind [$($secret)?]),
            $crate::flags!(@maybe [$($default)?]),
            concat!($($documentation),+),
        )
    }};
    (@maybe []) => { None };
    (@maybe [$value:tt]) => { Some($value) };
    (@kind switch []) => { $crate::settings::flags::FlagKind::Switch };
    (@kind option []) => { $crate::settings::flags::FlagKind::Value };
    (@kind option [secret]) => { $crate::settings::flags::FlagKind::Secret };

    (@type switch [] []) => { bool };
    (@type option [] []) => { Option<$crate::settings::SettingValue> };
    (@type option [$type:ty] []) => { Option<$type> };
    (@type option [$type:ty] [$default:tt]) => { $type };

    (@read ($environment:expr, $flag:expr) switch [] [] []) => {
        $crate::settings::values::switch($environment, SPEC.name(), $flag.is_some())
    };
    (@read ($environment:expr, $flag:expr) option [] [] []) => {
        SPEC.read($environment, $flag.as_ref())
    };
    (@read ($environment:expr, $flag:expr) option [$type:ty] [$parser:expr] []) => {{
        let parser: fn(&$crate::settings::SettingValue) -> Result<$type, $crate::settings::UsageError> =
            $parser;
        SPEC.read($environment, $flag.as_ref())?.map(|setting| parser(&setting)).transpose()
    }};
    (@read ($environment:expr, $flag:expr) option [$type:ty] [$parser:expr] [$default:tt]) => {{
        let parser: fn(&$crate::settings::SettingValue) -> Result<$type, $crate::settings::UsageError> =
            $parser;
        let setting = SPEC.read($environment, $flag.as_ref())?;
        parser(&setting.unwrap_or_else(|| SPEC.default_value()))
    }};
}

/// Composes groups of flags into a command; see
/// [`settings::flags`](crate::settings::flags).
#[macro_export]
macro_rules! command {
    (
        $(#[doc = $about:tt])+
        $visibility:vis struct $command:ident $(= $subcommand:tt)? {
            $($group:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[doc = $about])+
        $visibility struct $command {
            $($visibility $group: $type),+
        }

        impl $crate::settings::flags::CommandFlags for $command {
            const SPEC: $crate::settings::flags::CommandSpec =
                $crate::settings::flags::CommandSpec::new(
                    concat!($($subcommand)?),
                    concat!($($about),+),
                    &[$(<$type as $crate::settings::flags::FlagGroup>::FLAGS),+],
                );
        }

        impl argh::FromArgs for $command {
            fn from_args(names: &[&str], arguments: &[&str]) -> Result<Self, argh::EarlyExit> {
                use $crate::settings::flags::{CommandSpec, FlagGroup};
                let of = |group| CommandSpec::arguments_of(group, arguments);
                Ok(Self {
                    $($group: argh::FromArgs::from_args(names, &of(<$type>::FLAGS))?),+
                })
            }
        }

        $(
            impl argh::SubCommand for $command {
                const COMMAND: &'static argh::CommandInfo = &argh::CommandInfo {
                    name: $subcommand,
                    short: &'\0',
                    description: <Self as $crate::settings::flags::CommandFlags>::SPEC.about(),
                };
            }
        )?
    };
}
