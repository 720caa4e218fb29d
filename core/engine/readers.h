#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace qcache {

/// Those who have one file open while it is made, or are about to: what they are up to by their reads, and when to do
/// the work that none of them waits for. Not synchronized.
///
/// A reader that wants a few tensors has closed the file soon; one that is still there will want the rest. And a
/// program that has just read its model begins to compute with it, on all cores: sealing, which keeps a core busy for
/// seconds, leaves it alone while it reads.
class Readers {
 public:
  using Time = std::chrono::nanoseconds;  ///< as Env::monotonic_ns() has it

  /// From the first read, and whoever has the file open still will want the rest.
  static constexpr std::chrono::seconds kStays{2};
  /// How long a reader that has announced itself is waited for: large models take a program some seconds to set up.
  static constexpr std::chrono::seconds kComes{3};
  /// Without a read, and the reader is done.
  static constexpr std::chrono::seconds kQuiet{1};
  /// How long reads hold sealing back.
  static constexpr std::chrono::seconds kSealPatience{30};
  /// The same for a reader who reads unseen, as the file was handed to the kernel: it may be done, or still read.
  static constexpr std::chrono::seconds kUnseenPatience{10};

  void add() { ++open_; }
  void remove();
  [[nodiscard]] bool any() const { return open_ > 0; }
  void on_read(Time now);
  /// One has come whose reads nobody sees.
  void on_unseen(Time now) { unseen_since_ = now; }
  [[nodiscard]] bool read_since(Time then) const { return last_read_ && *last_read_ >= then; }
  /// A program is about to read all of the file. It may come and go before that.
  void expect(Time now) { expected_since_ = now; }
  [[nodiscard]] bool expected(Time now) const { return expected_since_ && now - *expected_since_ < kComes; }

  [[nodiscard]] bool want_the_rest(Time now) const;
  /// Whether sealing a file whose tiles are all made since then is to wait.
  [[nodiscard]] bool hold_back_sealing(Time now, Time all_made_since) const;

 private:
  uint32_t open_ = 0;
  std::optional<Time> first_read_;  // since somebody had it open
  std::optional<Time> last_read_;
  std::optional<Time> unseen_since_;
  std::optional<Time> expected_since_;
};

}  // namespace qcache
