//! What comparing with a host cannot show.
