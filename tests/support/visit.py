"""Opens pages of the console in Chromium, and notes what goes wrong in them."""

from __future__ import annotations

from dataclasses import dataclass

from playwright.sync_api import Browser, Page

OPERATOR_KEY = "pk-operator"
SIZES = {"desktop": (1440, 900), "tablet": (1024, 768), "phone": (390, 844)}


@dataclass(frozen=True)
class Visit:
    """Opens pages in contexts of their own, and remembers what went wrong in any of them."""

    chromium: Browser
    base_url: str
    troubles: list[str]

    def page(self, key: str = OPERATOR_KEY, *, size: str = "desktop", scheme: str = "light") -> Page:
        """Returns a page that is signed in with a key."""
        page = self.anonymous(size=size, scheme=scheme)
        page.goto("/sign-in")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.base_url}/")
        return page

    def anonymous(self, *, size: str = "desktop", scheme: str = "light") -> Page:
        width, height = SIZES[size]
        context = self.chromium.new_context(
            base_url=self.base_url,
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda said: self.troubles.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", lambda asked: self._check(asked.url))
        page.on("dialog", lambda dialog: (self.troubles.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        return page

    def expect_errors(self, *, containing: str) -> None:
        """Forgets the errors that a test provokes, such as an answer of 404."""
        self.troubles[:] = [trouble for trouble in self.troubles if containing not in trouble]

    def _check(self, url: str) -> None:
        if not url.startswith((self.base_url, "data:", "blob:")):
            self.troubles.append(f"a request leaves the machine: {url}")


def drop(page: Page, content: str, name: str) -> None:
    """Drops a file as a file manager does."""
    data = page.evaluate_handle(
        """([content, name]) => {
            const data = new DataTransfer();
            data.items.add(new File([content], name));
            return data;
        }""",
        [content, name],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
