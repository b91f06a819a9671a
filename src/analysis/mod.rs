//! Questions answered over a session: kernel summary, memcpys, idle time.
