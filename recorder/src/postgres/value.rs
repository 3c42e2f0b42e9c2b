//! Parameters of statements, with their SQL types.
//!
//! Each statement is sent with the types of its parameters and without a name. A prepared statement
//! belongs to a session. Behind a pooler in transaction mode, each transaction may run in another
//! session, where the name does not exist or belongs to another program.

use std::borrow::Cow;

use kafka_client::Uuid;
use postgres::types::{ToSql, Type};

/// A parameter of a statement.
pub trait SqlValue: ToSql + Sync {
    /// The SQL type that the value is sent as.
    fn sql_type(&self) -> Type;
}

/// A single value, which is not an array.
pub trait SqlScalar: ToSql + Sync {
    /// The type of the value.
    const TYPE: Type;
    /// The type of an array of such values.
    const ARRAY: Type;
}

macro_rules! scalars {
    ($($rust:ty: $sql:ident, $array:ident;)*) => {
        $(impl SqlScalar for $rust {
            const TYPE: Type = Type::$sql;
            const ARRAY: Type = Type::$array;
        })*
    };
}

scalars! {
    bool: BOOL, BOOL_ARRAY;
    i32: INT4, INT4_ARRAY;
    i64: INT8, INT8_ARRAY;
    f64: FLOAT8, FLOAT8_ARRAY;
    &str: TEXT, TEXT_ARRAY;
    String: TEXT, TEXT_ARRAY;
    Cow<'_, str>: TEXT, TEXT_ARRAY;
    &[u8]: BYTEA, BYTEA_ARRAY;
    Uuid: UUID, UUID_ARRAY;
}

impl<T: SqlScalar> SqlScalar for Option<T> {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

impl<T: SqlScalar> SqlValue for T {
    fn sql_type(&self) -> Type {
        T::TYPE
    }
}

impl<T: SqlScalar> SqlValue for Vec<T> {
    fn sql_type(&self) -> Type {
        T::ARRAY
    }
}

impl<T: SqlScalar> SqlValue for &[T] {
    fn sql_type(&self) -> Type {
        T::ARRAY
    }
}
