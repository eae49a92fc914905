"""Swagger UI at /docs in headless Chromium: run.py MCP-X [SCREENSHOT]

Starts a gateway with one client, opens /docs, and fails on any error in the console, any request that fails or goes
elsewhere, and any violation of the page's policy. Enters the client's token, has GET /get_tools executed, and compares
what is shown. Chromium is `CHROMIUM`, by default the one of the Debian package `chromium`.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.async_api import Page, async_playwright, expect

TOKEN = "docs-token-0123456789"
CONFIG = f'[clients.reader]\nauth_token = "{TOKEN}"\nadmin = true\n'
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


def start(binary: Path, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Starts the gateway; returns it and where it listens."""
    (folder / "config.toml").write_text(CONFIG)
    log = (folder / "log").open("wb")
    gateway = subprocess.Popen([binary, "--listen", "127.0.0.1:0"], cwd=folder, stderr=log)
    for _ in range(200):
        text = (folder / "log").read_text()
        if " listening address=" in text:
            return gateway, "http://" + text.split("address=")[1].split(" ")[0]
        time.sleep(0.05)
    raise TimeoutError("the gateway does not listen")


def listen_for_trouble(page: Page, base: str) -> list[str]:
    """Everything that the page should not do, as it happens."""
    trouble: list[str] = []
    page.on("console", lambda message: message.type in {"error", "warning"} and trouble.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("requestfailed", lambda request: trouble.append(f"failed: {request.url}"))
    page.on("response", lambda answer: answer.status >= 400 and trouble.append(f"{answer.status}: {answer.url}"))
    own = (base, "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(own) or trouble.append(f"elsewhere: {request.url}"))
    return trouble


async def visit(base: str, screenshot: str | None) -> list[str]:
    with urllib.request.urlopen(f"{base}/openapi.json") as answer:
        operations = answer.read().count(b'"operationId"')
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1200, "height": 1400})
        trouble = listen_for_trouble(page, base)
        await page.goto(f"{base}/docs")
        await expect(page.locator(".opblock")).to_have_count(operations)
        await page.get_by_role("button", name="Authorize").first.click()
        await page.locator(".auth-container input").fill(TOKEN)
        await page.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
        await page.locator(".auth-container").get_by_role("button", name="Close").click()
        operation = page.locator("#operations-Tools-get_tools")
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Try it out").click()
        await operation.get_by_role("button", name="Execute").click()
        shown = operation.locator(".live-responses-table tbody .response-col_status").first
        await expect(shown).to_contain_text("200")
        await expect(operation.locator(".live-responses-table")).to_contain_text('"tools": []')
        if screenshot:
            await page.screenshot(path=screenshot, full_page=False)
        kept = await page.evaluate("Object.values({...localStorage, ...sessionStorage}).join()")
        if TOKEN in kept:
            trouble.append("the token is kept in the browser")
        await browser.close()
    return trouble


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        gateway, base = start(Path(sys.argv[1]).resolve(), Path(folder))
        try:
            trouble = asyncio.run(visit(base, sys.argv[2] if len(sys.argv) > 2 else None))
        finally:
            gateway.terminate()
            gateway.wait()
    for problem in trouble:
        print(problem)
    print("docs: failed" if trouble else "docs: rendered, authorised, executed; nothing loaded from elsewhere")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
