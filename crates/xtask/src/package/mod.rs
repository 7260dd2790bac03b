pub(crate) mod deb;
pub(crate) mod rpm;
