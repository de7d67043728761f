"""A run of the GPU's tests alone fails where every one of them was skipped: it has shown nothing."""


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.option.markexpr != "gpu" or reporter is None or exitstatus:
        return
    ran = sum(len(reporter.stats.get(outcome, [])) for outcome in ("passed", "failed", "error", "xfailed", "xpassed"))
    if reporter.stats.get("skipped") and not ran:
        reporter.write_line("every test of the GPU was skipped: nothing was shown. See `optkit doctor`", red=True)
        session.exitstatus = 1
