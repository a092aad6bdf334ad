// The daemon's malloc is jemalloc, which the link puts before libc's. This
// string configures it.
//
// libc's malloc keeps the freed memory of deleted VMs, dirty logs and calls,
// spread over an arena per thread: a daemon that creates and deletes small VMs
// all day grows by megabytes with every few hundred of them. jemalloc returns
// pages that were unused for `dirty_decay_ms` to the system, at once and for
// good (`muzzy_decay_ms`: 0 means MADV_DONTNEED, not MADV_FREE). It does so in
// threads of its own, so that an idle daemon shrinks as well.

// NOLINTNEXTLINE(readability-identifier-naming): jemalloc's name
extern "C" const char* malloc_conf;
const char* malloc_conf =
    "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";
