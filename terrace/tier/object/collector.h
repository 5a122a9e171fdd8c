// Removes packs that are too old, or too many, from a store that nodes share. No index is kept: one
// listing adds up what lies there by age, a second one removes what is older than the age at which
// the rest fits. Age is since a pack was put or touched, by the store's own clock. Whoever has
// found a pack that goes before he reads it has a miss. One round is one object of this class:
// next() says what to ask of the store, take() hears of it. Of several nodes one collects at a
// time: who puts the object of a turn. Two at once are harmless: both remove what is oldest.
// Threading: thread-compatible.  Waits: never.
// Memory: the names of one page, and sums by age of fixed size. Source: docs/adr/0025.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"
#include "terrace/transfer/object_listing.h"
#include "terrace/transfer/object_store.h"

namespace terrace::tier {

// What packs may lie in a store. 0 = no such bound.
struct ObjectBounds {
  Nanoseconds max_age{0};  // Since they were put or touched.
  std::uint64_t bytes = 0;
  std::uint64_t blocks = 0;
  [[nodiscard]] bool has_any() const { return max_age > Nanoseconds(0) || bytes > 0 || blocks > 0; }
};

struct PackTotals {
  std::uint64_t packs = 0;
  std::uint64_t bytes = 0;
  std::uint64_t blocks = 0;
  void add(const PackTotals& more);
  void remove(const PackTotals& less);
  friend bool operator==(const PackTotals&, const PackTotals&) = default;
};

// How far a round is.
struct CollectReport {
  static constexpr std::size_t kMostKeys = 64;
  enum class Phase : std::uint8_t { kTurn, kCount, kRemove, kOver };
  Phase phase = Phase::kTurn;
  bool is_counted = false;      // Every pack was seen: `found` is all there is.
  bool is_others_turn = false;  // Over: another node has this turn.
  PackTotals found;             // Of all namespaces.
  // Of those, by the id of the key that they are encrypted with; "" = not encrypted. No more than
  // kMostKeys: what is over is in `found` alone.
  std::map<std::string, PackTotals, std::less<>> by_key;
  PackTotals too_old;               // Removed, or to be removed, for their age
  PackTotals too_many;              // … and as the rest was too much.
  std::uint64_t gone = 0;           // Packs removed so far.
  std::uint64_t failed = 0;         // Removals that failed.
  std::uint64_t foreign = 0;        // Other objects below kAllPacks: left alone.
  std::int64_t oldest_seconds = 0;  // Age of the oldest pack that stays, as counted.
  Status status;                    // Over: ok, or why it ended early.
};
[[nodiscard]] std::string_view to_string(CollectReport::Phase phase);

class Collector {
 public:
  struct Options {
    ObjectBounds bounds;
    // Nothing is written and nothing removed; the age is by this node's clock, then.
    bool is_dry_run = false;
    // A turn is one span of this length by the wall clock.
    Nanoseconds every = seconds(3600);
    // Else it goes on whoever has the turn: somebody asked for it.
    bool gives_way = true;
    unsigned most_removals = 4;  // Under way.
    unsigned requests_per_second = 100;
    Nanoseconds request_time = seconds(60);
  };
  Collector(const Options& options, const Clock& clock);

  // What to ask of the store now, with a token of ours; nothing = wait for an answer, or until
  // due(). Whoever cannot ask gives it to take() as failed.
  [[nodiscard]] std::optional<transfer::ObjectRequest> next();
  void take(const transfer::ObjectAnswer& answer);
  // Nothing more is begun; what is under way is still to be taken.
  void stop(const Status& why);

  [[nodiscard]] bool is_over() const { return report_.phase == CollectReport::Phase::kOver; }
  [[nodiscard]] bool is_idle() const { return !is_asking_ && removals_.empty(); }
  [[nodiscard]] const CollectReport& report() const { return report_; }
  // When the pace allows the next request, at the latest.
  [[nodiscard]] Nanoseconds due() const { return not_before_; }
  // The turn of this moment.
  [[nodiscard]] std::uint64_t present_turn() const;

 private:
  enum class Step : std::uint8_t { kPutTurn, kHeadTurn, kListTurns, kListPacks, kNone };
  struct Victim {
    std::string name;
    bool is_pack = true;
  };
  // Sums by age: exact below 64 s, then 64 cells for each doubling.
  class Ages {
   public:
    Ages() : cells_(kCells) {}
    static constexpr std::size_t kCells = std::size_t{64} * 60;
    [[nodiscard]] static std::size_t cell_of(std::uint64_t age_seconds);
    [[nodiscard]] static std::uint64_t age_of(std::size_t cell);  // The least of the cell.
    [[nodiscard]] PackTotals& at(std::size_t cell) { return cells_[cell]; }

   private:
    std::vector<PackTotals> cells_;
  };

  [[nodiscard]] transfer::ObjectRequest request(transfer::ObjectOp op, std::string name);
  [[nodiscard]] std::optional<transfer::ObjectRequest> ask();
  [[nodiscard]] bool has_turn_passed() const;
  void take_main(const transfer::ObjectAnswer& answer);
  void take_turns(const transfer::ObjectAnswer& answer);
  void take_packs(const transfer::ObjectAnswer& answer);
  void take_removal(const transfer::ObjectAnswer& answer, const Victim& victim);
  void consider(const transfer::ObjectInfo& info);
  void add_to_key(std::string_view key, const PackTotals& pack);
  void end_listing();
  void draw_line();
  [[nodiscard]] bool is_over_line(std::size_t cell, const PackTotals& pack);
  void end(Status status);
  // Once nothing is left to do, or after stop().
  void end_if_done();

  const Options options_;
  const Clock& clock_;
  CollectReport report_;
  Step step_ = Step::kPutTurn;     // Asked for, or to be asked for next.
  Step resume_ = Step::kHeadTurn;  // After kPutTurn.
  bool is_asking_ = false;
  std::uint64_t turn_ = 0;
  std::int64_t now_seconds_ = 0;              // By the store's clock.
  transfer::ObjectListing packs_;             // The listing that is under way.
  std::deque<Victim> victims_;                // Of this page.
  std::map<std::uint64_t, Victim> removals_;  // Under way, by token.
  std::uint64_t last_token_ = 0;
  unsigned failures_ = 0;  // In a row.
  Status stop_;
  Nanoseconds not_before_{0};
  Ages ages_;
  PackTotals kept_;                  // Not too old.
  std::size_t line_ = Ages::kCells;  // Packs of older cells go,
  PackTotals at_line_;               // and of this one so many.
  std::string content_ = "turn\n";
};

}  // namespace terrace::tier
