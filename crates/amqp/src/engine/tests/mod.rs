//! The engine against a client that is made of frames.

mod any_frames;
mod client;
mod conversation;
mod deliveries;
mod links;
