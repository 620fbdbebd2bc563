//! The control protocol between batonctl and the primary.
