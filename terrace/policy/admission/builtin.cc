// The filters that settings can name, and the one that is none.
#include "terrace/policy/admission/admission.h"

namespace terrace::policy {

namespace {

class AdmitAll final : public AdmissionFilter {
 public:
  bool admit(const BlockKey&, Nanoseconds) override { return true; }
  void on_hit(const BlockKey&, Nanoseconds) override {}
  Bytes memory() const override { return Bytes(0); }
};

Status check(const FrequencyOptions& options) {
  if (options.threshold == 0) return {Code::kInvalid, "admission threshold is 0; at least 1"};
  if (options.decay_interval <= Nanoseconds(0)) {
    return {Code::kInvalid, "admission decay interval is not above 0"};
  }
  if (options.entries == 0 || options.entries > 2'000'000'000) {
    return {Code::kInvalid, "admission entries is " + std::to_string(options.entries) +
                                "; between 1 and 2000000000"};
  }
  return {};
}

}  // namespace

std::unique_ptr<AdmissionFilter> make_admit_all() { return std::make_unique<AdmitAll>(); }

Result<std::unique_ptr<AdmissionFilter>> make_admission(std::string_view name,
                                                        const FrequencyOptions& options) {
  if (name == "all") return make_admit_all();
  if (name != "frequency") {
    return fail(Code::kInvalid,
                "admission policy \"" + std::string(name) + "\" is unknown; known: all, frequency");
  }
  TERRACE_RETURN_IF_ERROR(check(options));
  auto filter = make_frequency(options);
  if (filter == nullptr) {
    return fail(Code::kExhausted, "no memory for " + std::to_string(options.entries) +
                                      " admission counts: lower the number of entries");
  }
  return filter;
}

}  // namespace terrace::policy
