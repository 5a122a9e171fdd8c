#include "terrace/tier/object/repairs_internal.h"

namespace terrace::tier::object {

namespace {
constexpr Nanoseconds kLookTime = seconds(30);
constexpr Nanoseconds kLookEvery = seconds(30);  // At each.
constexpr Nanoseconds kPace = seconds(1);
}  // namespace

void Repairs::advance() {
  const Nanoseconds now = context_.clock.now();
  if (is_asking_ || now < next_at_ || context_.is_stopped) return;
  {
    const MutexLock lock(context_.mutex);
    const DamagedPack* due = context_.damaged.due(now);
    if (due == nullptr) return;
    asked_ = due->name;
    context_.damaged.find(asked_)->look_at = now + kLookEvery;
  }
  next_at_ = now + kPace;
  transfer::ObjectRequest request;
  request.op = transfer::ObjectOp::kHead;
  request.name = context_.name_of(asked_.pack, asked_.variant);
  request.deadline = now + kLookTime;
  request.token = context_.token(Part::kRepair, 0);
  is_asking_ = context_.queue.push(transfer::IoClass::kScrub, std::move(request)).is_ok();
}

void Repairs::take(const transfer::ObjectAnswer& answer) {
  is_asking_ = false;
  if (!answer.status.is_ok() && answer.status.code() != Code::kNotFound) return;
  bool is_another = !answer.status.is_ok();
  {
    const MutexLock lock(context_.mutex);
    DamagedPack* pack = context_.damaged.find(asked_);
    if (pack == nullptr) return;
    const transfer::ObjectInfo& info = answer.info;
    is_another = is_another || pack->bytes.value_or(info.bytes) != info.bytes ||
                 pack->modified_seconds.value_or(info.modified_seconds) != info.modified_seconds;
    pack->bytes = info.bytes;
    pack->modified_seconds = info.modified_seconds;
  }
  if (is_another) context_.mend(asked_);
}

}  // namespace terrace::tier::object
