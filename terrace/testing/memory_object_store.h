// An object store in memory, for tests of what lies above one: several stores open one place; a
// test may look at and spoil what lies there, hold answers back, and let requests fail. It looks at
// no deadline: the queue above does.
// Threading: a place and its stores belong to one thread.  Waits: never.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/transfer/object_store.h"

namespace terrace::testing {

struct MemoryPlace {
  std::map<std::string, std::vector<std::byte>> objects;
  std::map<std::string, std::int64_t> modified;  // Since when; else since now.
  std::function<std::int64_t()> wall_seconds = [] { return SystemClock().wall_seconds(); };
  bool replaces = false;  // Puts do: it knows no conditions.
  bool is_held = false;   // No answers come until it is false again.
  // What becomes of a request, before it is looked at; ok = it goes its way.
  std::function<Status(const transfer::ObjectRequest&)> fault;
  // The last word on an answer.
  std::function<void(const transfer::ObjectRequest&, transfer::ObjectAnswer&)> twist;
  std::vector<std::string> asked;  // "get name", in order.
};

class MemoryObjectStore final : public transfer::ObjectStore {
 public:
  MemoryObjectStore(std::shared_ptr<MemoryPlace> place, unsigned depth)
      : ObjectStore(depth), place_(std::move(place)) {}
  std::string_view name() const override { return "memory"; }
  const std::string& place() const override { return text_; }
  bool shows_arrivals() const override { return true; }
  void wake() override {}
  bool close(Nanoseconds) override { return true; }

 protected:
  Status start(transfer::ObjectRequest request) override {
    place_->asked.push_back(std::string(to_string(request.op)) + " " + request.name);
    waiting_.push_back(std::move(request));
    return {};
  }
  void collect(std::vector<Finished>& finished) override {
    if (place_->is_held) return;
    for (transfer::ObjectRequest& request : waiting_) {
      transfer::ObjectAnswer answer;
      if (place_->fault) answer.status = place_->fault(request);
      if (answer.status.is_ok()) serve(request, answer);
      if (place_->twist) place_->twist(request, answer);
      finished.push_back({std::move(request), std::move(answer)});
    }
    waiting_.clear();
  }
  void pause(Nanoseconds) override {}

 private:
  using Request = transfer::ObjectRequest;
  using Answer = transfer::ObjectAnswer;
  void serve(const Request& request, Answer& answer) {
    auto& objects = place_->objects;
    const auto found = objects.find(request.name);
    const bool is_there = found != objects.end();
    switch (request.op) {
      case transfer::ObjectOp::kPut:
        answer.was_there = is_there && !place_->replaces;
        if (answer.was_there) return;
        objects[request.name] = join(request);
        place_->modified[request.name] = place_->wall_seconds();
        return;
      case transfer::ObjectOp::kGet:
      case transfer::ObjectOp::kHead:
        if (!is_there) {
          answer.status = {Code::kNotFound, "no such object"};
        } else if (request.op == transfer::ObjectOp::kHead) {
          answer.info = info_of(*found);
        } else {
          answer.status = copy(found->second, request);
        }
        return;
      case transfer::ObjectOp::kList:
        return list(request, answer);
      case transfer::ObjectOp::kRemove:
        objects.erase(request.name);
        return;
      case transfer::ObjectOp::kTouch:
        if (!is_there) answer.status = {Code::kNotFound, "no such object"};
        if (is_there) place_->modified[request.name] = place_->wall_seconds();
        return;
    }
  }
  [[nodiscard]] transfer::ObjectInfo info_of(
      const std::pair<const std::string, std::vector<std::byte>>& item) const {
    const auto since = place_->modified.find(item.first);
    const bool is_known = since != place_->modified.end();
    return {item.first, item.second.size(), is_known ? since->second : place_->wall_seconds()};
  }
  static std::vector<std::byte> join(const Request& request) {
    std::vector<std::byte> bytes;
    for (const transfer::MemoryPiece& piece : request.pieces) {
      bytes.insert(bytes.end(), piece.data, piece.data + piece.bytes);
    }
    return bytes;
  }
  static Status copy(const std::vector<std::byte>& bytes, const Request& request) {
    if (request.offset > bytes.size() || bytes.size() - request.offset < request.bytes()) {
      return {Code::kCorrupt, "the object ends before"};
    }
    const std::byte* from = bytes.data() + request.offset;
    for (const transfer::MemoryPiece& piece : request.pieces) {
      std::memcpy(piece.data, from, piece.bytes);
      from += piece.bytes;
    }
    if (request.arrivals != nullptr) {
      const std::uint64_t half = request.bytes() / 2;
      if (half > 0) request.arrivals->on_bytes(0, half);
      request.arrivals->on_bytes(half, request.bytes());
    }
    return {};
  }
  void list(const Request& request, Answer& answer) {
    for (const auto& item : place_->objects) {
      if (!item.first.starts_with(request.name) || item.first <= request.after) continue;
      if (answer.found.size() == transfer::kMostListed) {
        answer.next = answer.found.back().name;
        return;
      }
      answer.found.push_back(info_of(item));
    }
  }

  std::shared_ptr<MemoryPlace> place_;
  std::string text_ = "memory";
  std::vector<Request> waiting_;
};

}  // namespace terrace::testing
