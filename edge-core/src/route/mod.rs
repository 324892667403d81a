//! Where a message goes: route grammar and route table.
