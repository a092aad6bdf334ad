// The budgets and the threads of all calls.

#ifndef SERVER_RPC_CALL_RUNTIME_H_
#define SERVER_RPC_CALL_RUNTIME_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/budget.h"
#include "server/rpc/cut_off.h"
#include "server/rpc/open_streams.h"
#include "server/rpc/timer.h"
#include "server/rpc/worker_pool.h"

namespace mmud {

// The kinds of calls, each with a budget of its own:
//
//   short   reads of state and changes that are made at once. They share
//           threads and wait their turn for one.
//   long    calls that may wait for locks or guests: everything that changes a
//           VM. Each has a thread of its own at once, so that it takes no
//           thread that GetVm needs. The number per VM is limited, so that one
//           VM leaves room for the others.
//   stream  has a thread only while it makes its next message, none while its
//           peer does not read.
//   wait    has no thread at all until it is answered.
//   reflection
//           asks for the list of services; has no thread of the daemon at all.
//
// A call of any kind keeps its places as long as one of its messages may wait
// for its peer. So clients that do not read their answers cannot pile up more
// of them than there are places. A call that has only its status left to send,
// that is a stream at its end or a call that fails, gives its places back
// first: a status does not wait for the peer. An answer is sent together with
// its status, so its place is free a moment after the peer has it.
//
// A peer that does not take an answer for `patience` is cut off. For a stream
// this time starts only when the stream is ended from outside: until then its
// peer may read slowly and keeps its place. A conversation whose peer sends
// nothing at all ends after `first_message_patience`.
//
// Thread-safe. Outlives all calls.
struct CallRuntime {
  // The time for which a peer that opens a conversation may send nothing.
  // Before its first message the stream's VM is unknown, so the stream takes no
  // place of a VM.
  static constexpr absl::Duration kFirstMessagePatience = absl::Seconds(10);

  struct Limits {
    int64_t max_rpc_threads = 64;
    int64_t max_short_calls = 2048;
    int64_t max_long_calls = 256;
    int64_t max_long_calls_per_vm = 32;
    int64_t max_streams = 256;
    int64_t max_streams_per_vm = 32;
    int64_t max_waits = 1024;
    int64_t max_reflections = 64;
    absl::Duration patience = OpenStreams::kPatienceWithOne;
    absl::Duration first_message_patience = kFirstMessagePatience;
  };

  explicit CallRuntime(const Limits& limits)
      : short_calls("max_short_calls", limits.max_short_calls,
                    "short calls are in progress", absl::Milliseconds(100)),
        long_calls("max_long_calls", limits.max_long_calls,
                   "long calls are in progress", absl::Seconds(1)),
        long_calls_per_vm("max_long_calls_per_vm", limits.max_long_calls_per_vm,
                          "long calls are in progress", absl::Seconds(1)),
        streams("max_streams", limits.max_streams, "streams are open",
                absl::Seconds(1)),
        streams_per_vm("max_streams_per_vm", limits.max_streams_per_vm,
                       "streams are open", absl::Seconds(1)),
        waits("max_waits", limits.max_waits,
              "waits for operations are in progress", absl::Seconds(1)),
        reflections("max_reflections", limits.max_reflections,
                    "streams of server reflection are open", absl::Seconds(1)),
        short_workers(limits.max_rpc_threads),
        long_workers(limits.max_long_calls, WorkerPool::WithoutThread::kRefuse),
        stream_workers(limits.max_streams),
        patience(limits.patience),
        first_message_patience(limits.first_message_patience) {}

  std::vector<BudgetUse> Uses() const {
    return {short_calls.Use(), long_calls.Use(),     long_calls_per_vm.Use(),
            streams.Use(),     streams_per_vm.Use(), waits.Use(),
            reflections.Use()};
  }

  Budget short_calls;
  Budget long_calls;
  Budget long_calls_per_vm;
  Budget streams;
  Budget streams_per_vm;
  Budget waits;
  Budget reflections;
  OpenStreams open_streams;
  WorkerPool short_workers;
  WorkerPool long_workers;
  WorkerPool stream_workers;
  const absl::Duration patience;  // how long a peer may take no answer
  const absl::Duration first_message_patience;
  // The status for a peer that does not take its answer. It is made once,
  // because each answer must have it ready.
  const absl::Status answer_not_taken = AnswerNotTaken(patience);
  Timer timer;  // last: its functions use the other members
};

}  // namespace mmud

#endif  // SERVER_RPC_CALL_RUNTIME_H_
