#include "terrace/transfer/object_store.h"

#include <fmt/format.h>

namespace terrace::transfer {

namespace {

bool is_name_byte(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '.' ||
         byte == '_' || byte == '-';
}

// What is wrong with the part of a name between two slashes; empty = nothing.
std::string_view fault_of(std::string_view part) {
  if (part.empty()) return "has an empty part";
  if (part.size() > kMostPartBytes) return "has a part of more than 200 bytes";
  if (part == "." || part == "..") return "has a part that means another folder";
  for (const char byte : part) {
    if (!is_name_byte(byte)) return "has bytes outside a-z, 0-9, '.', '_', '-' and '/'";
  }
  return {};
}

// For a message: what is printed of a name that is anything but one.
std::string printable(std::string_view name) {
  std::string text;
  for (const char byte : name.substr(0, 64)) {
    text += byte >= 0x20 && byte < 0x7f
                ? std::string(1, byte)
                : fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  }
  return name.size() > 64 ? text + "…" : text;
}

Status check_request(const ObjectRequest& request) {
  const bool is_listing = request.op == ObjectOp::kList;
  std::string_view name = request.name;
  // What names begin with may end with a slash, or be nothing.
  if (is_listing && name.ends_with('/')) name.remove_suffix(1);
  if (!is_listing || !request.name.empty()) TERRACE_RETURN_IF_ERROR(check_object_name(name));
  const bool moves_bytes = request.op == ObjectOp::kPut || request.op == ObjectOp::kGet;
  if (moves_bytes != (request.bytes() > 0)) {
    return {Code::kInvalid, fmt::format("{} {}: {} bytes in {} pieces", to_string(request.op),
                                        request.name, request.bytes(), request.pieces.size())};
  }
  return {};
}

}  // namespace

std::string_view to_string(ObjectOp op) {
  switch (op) {
    case ObjectOp::kPut:
      return "put";
    case ObjectOp::kGet:
      return "get";
    case ObjectOp::kHead:
      return "head";
    case ObjectOp::kList:
      return "list";
    case ObjectOp::kRemove:
      return "remove";
    case ObjectOp::kTouch:
      return "touch";
  }
  return "unknown";
}

Status check_object_name(std::string_view name) {
  std::string_view fault;
  if (name.size() > kMostNameBytes) fault = "is longer than 512 bytes";
  std::string_view rest = name;
  while (fault.empty()) {
    const std::size_t slash = rest.find('/');
    fault = fault_of(rest.substr(0, slash));
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  if (fault.empty()) return {};
  return {Code::kInvalid, fmt::format("object name '{}' {}", printable(name), fault)};
}

std::uint64_t ObjectRequest::bytes() const {
  std::uint64_t sum = 0;
  for (const MemoryPiece& piece : pieces) sum += piece.bytes;
  return sum;
}

Status ObjectStore::submit(ObjectRequest request) {
  TERRACE_RETURN_IF_ERROR(check_request(request));
  if (in_flight() >= depth_) return {Code::kExhausted, "object request depth reached"};
  const std::uint64_t ticket = in_flight_.add(request.token);
  request.token = ticket;
  Status status = start(std::move(request));
  if (!status.is_ok()) (void)in_flight_.take(ticket);
  return status;
}

void ObjectStore::poll(std::vector<ObjectAnswer>& answers) {
  finished_.clear();
  collect(finished_);
  for (Finished& item : finished_) {
    const auto token = in_flight_.take(item.request.token);
    if (!token) {
      counters_.stray.add();
      continue;
    }
    const auto op = static_cast<std::size_t>(item.request.op);
    ObjectAnswer& answer = item.answer;
    counters_.done[op].add();
    if (answer.status.is_ok()) {
      if (!answer.was_there) counters_.bytes[op].add(item.request.bytes());
    } else if (answer.status.code() != Code::kNotFound) {
      counters_.errors[op].add();
    }
    answer.token = *token;
    answers.push_back(std::move(answer));
  }
}

}  // namespace terrace::transfer
