// The streams that are open, so that they can be ended.

#ifndef SERVER_RPC_OPEN_STREAMS_H_
#define SERVER_RPC_OPEN_STREAMS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace mmud {

// A stream that somebody else may end.
class EndableStream {
 public:
  virtual ~EndableStream() = default;
  // It ends with `status`, the first that it is given, and lets go at once of
  // the VM that it reads from if its peer does not read just now. A peer that
  // takes nothing for `patience` from here is cut off: it hears the status's
  // code and message, without the details. Returns at once. Thread-safe.
  virtual void End(const absl::Status& status, absl::Duration patience) = 0;
};

// Thread-safe.
class OpenStreams {
 public:
  // `vm` is empty until it is known; then this is called again.
  void Add(const std::shared_ptr<EndableStream>& stream, absl::string_view vm) {
    absl::MutexLock lock(&mu_);
    streams_[stream.get()] = {stream, std::string(vm)};
  }
  void Remove(const EndableStream* stream) {
    absl::MutexLock lock(&mu_);
    streams_.erase(stream);
  }

  // Ends the streams of one VM. When it returns, those that were begun before
  // hold the VM only while they make a message.
  void EndOf(absl::string_view vm, const absl::Status& status) {
    End([vm](const std::string& of) { return of == vm; }, status,
        kPatienceWithOne);
  }
  // Ends all streams, and soon: the daemon waits for their peers.
  void EndAll(const absl::Status& status) {
    End([](const std::string&) { return true; }, status, kPatienceWithAll);
  }

  // With a peer that takes nothing, when nobody waits for it.
  static constexpr absl::Duration kPatienceWithOne = absl::Seconds(30);

 private:
  struct Stream {
    std::weak_ptr<EndableStream> stream;
    std::string vm;
  };

  static constexpr absl::Duration kPatienceWithAll = absl::Seconds(1);

  template <typename Filter>
  void End(const Filter& filter, const absl::Status& status,
           absl::Duration patience) {
    std::vector<std::shared_ptr<EndableStream>> ending;
    {
      absl::MutexLock lock(&mu_);
      for (const auto& [key, open] : streams_) {
        std::shared_ptr<EndableStream> stream = open.stream.lock();
        if (stream != nullptr && filter(open.vm)) ending.push_back(stream);
      }
    }
    for (const auto& stream : ending) stream->End(status, patience);
  }

  absl::Mutex mu_;
  absl::flat_hash_map<const EndableStream*, Stream> streams_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_RPC_OPEN_STREAMS_H_
