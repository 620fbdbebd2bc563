//! Services: virtual endpoints, their real servers, and the schedulers that choose among them.
