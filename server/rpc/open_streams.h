// The open streams, registered so that they can be ended.

#ifndef SERVER_RPC_OPEN_STREAMS_H_
#define SERVER_RPC_OPEN_STREAMS_H_

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace mmud {

// A stream that can be ended from outside.
class EndableStream {
 public:
  virtual ~EndableStream() = default;
  // Ends the stream with `status`; of several calls the first counts. If its
  // peer does not read just now, the stream releases its VM at once. A peer
  // that takes nothing for `patience` from now is cut off: it gets the status's
  // code and message, without the details. Returns at once. Thread-safe.
  virtual void End(const absl::Status& status, absl::Duration patience) = 0;
};

// Thread-safe.
class OpenStreams {
 public:
  // Registers a stream. `vm` is empty until it is known; then this is called
  // again.
  void Add(const std::shared_ptr<EndableStream>& stream, absl::string_view vm) {
    absl::MutexLock lock(&mu_);
    streams_[stream.get()] = {stream, std::string(vm)};
  }
  void Remove(const EndableStream* stream) {
    absl::MutexLock lock(&mu_);
    streams_.erase(stream);
  }

  // Ends the streams of one VM. After the return, streams that were begun
  // before hold the VM only while they make a message.
  void EndOf(absl::string_view vm, const absl::Status& status) {
    End([vm](const std::string& of) { return of == vm; }, status,
        kPatienceWithOne);
  }
  // Ends all streams, with a short patience: the daemon waits for their peers.
  void EndAll(const absl::Status& status) {
    End([](const std::string&) { return true; }, status, kPatienceWithAll);
  }

  // Patience with a peer that takes no messages, if no other work waits for the
  // stream's end.
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
  std::unordered_map<const EndableStream*, Stream> streams_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_RPC_OPEN_STREAMS_H_
