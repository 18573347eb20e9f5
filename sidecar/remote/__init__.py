"""The store's side of one mapping: what it holds (`fetch`), what changes (`watch`), what is sent (`commit`)."""
