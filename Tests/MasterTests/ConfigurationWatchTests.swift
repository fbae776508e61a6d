import Glibc
import ShmRing
import Testing

@testable import Master

@Suite struct ConfigurationWatchTests {
    private let folder = TemporaryFolder()

    /// A watch on `lb.json` with the text "one", past the look that it takes at first.
    private func watch(_ name: String = "lb.json") throws -> ConfigurationWatch {
        let watch = try ConfigurationWatch([WatchedFile(path: folder.file(name), text: "one")], nowNs: 0)
        #expect(!settles(watch))
        return watch
    }

    /// What the watch says when the events so far have become quiet. Times are made up.
    private func settles(_ watch: ConfigurationWatch) -> Bool {
        _ = watch.changed(nowNs: 0)
        guard let atNs = watch.wakeAtNs else { return false }
        return watch.changed(nowNs: atNs)
    }

    private func isReadable(_ watch: ConfigurationWatch) -> Bool {
        var poll = pollfd(fd: watch.descriptor, events: Int16(POLLIN), revents: 0)
        return unsafe Glibc.poll(&poll, 1, 0) == 1
    }

    @Test func aFileThatIsWrittenAnewIsNoticedOnce() throws {
        folder.write("one", to: "lb.json")
        let watch = try watch()
        folder.write("two", to: "lb.json")
        #expect(isReadable(watch))
        #expect(!watch.changed(nowNs: 0), "the file may not be complete yet")
        #expect(settles(watch))
        #expect(!settles(watch) && !isReadable(watch) && watch.wakeAtNs == nil)
    }

    @Test func aFileThatIsRenamedIntoPlaceIsNoticedEachTime() throws {
        folder.write("one", to: "lb.json")
        let watch = try watch()
        for text in ["two", "three", "four"] {
            folder.write(text, to: "lb.json.new")
            folder.rename("lb.json.new", to: "lb.json")
            #expect(settles(watch))
        }
    }

    /// As the kubelet updates a mounted ConfigMap.
    @Test func aLinkThatIsSwappedOnTheWayIsNoticed() throws {
        func revision(_ name: String, _ text: String) {
            folder.makeFolder(name)
            folder.write(text, to: "\(name)/lb.json")
            folder.link("..data_tmp", to: name)
            folder.rename("..data_tmp", to: "..data")
        }
        revision("..1", "one")
        folder.link("lb.json", to: "..data/lb.json")
        let watch = try watch()
        revision("..2", "two")
        #expect(settles(watch))
        revision("..3", "two")
        #expect(!settles(watch), "the text is the same")
        revision("..4", "one")
        #expect(settles(watch))
    }

    @Test func theSameTextIsNoChange() throws {
        folder.write("one", to: "lb.json")
        let watch = try watch()
        folder.write("one", to: "lb.json")
        #expect(!settles(watch))
    }

    @Test func otherFilesAreNoChange() throws {
        folder.write("one", to: "lb.json")
        let watch = try watch()
        folder.write("two", to: "other.json")
        #expect(!settles(watch))
    }

    @Test func aFileThatIsAwayForAWhileIsNoChange() throws {
        folder.write("one", to: "lb.json")
        let watch = try watch()
        folder.rename("lb.json", to: "away")
        #expect(!settles(watch))
        folder.rename("away", to: "lb.json")
        #expect(!settles(watch))
        folder.write("two", to: "lb.json")
        #expect(settles(watch))
    }

    @Test func aChangeBeforeTheWatchIsNoticed() throws {
        folder.write("two", to: "lb.json")
        #expect(settles(try ConfigurationWatch([WatchedFile(path: folder.file("lb.json"), text: "one")], nowNs: 0)))
    }

    @Test func aFolderThatIsReplacedIsFollowedByItsName() throws {
        folder.makeFolder("etc")
        folder.write("one", to: "etc/lb.json")
        let watch = try watch("etc/lb.json")
        folder.rename("etc", to: "old")
        #expect(!settles(watch))
        #expect(watch.wakeAtNs != nil, "it looks again")
        folder.makeFolder("etc")
        folder.write("two", to: "etc/lb.json")
        #expect(settles(watch))
        folder.write("three", to: "old/lb.json")
        #expect(!settles(watch))
        folder.write("four", to: "etc/lb.json")
        #expect(settles(watch))
    }

    @Test func severalFilesInSeveralFoldersAreWatchedByOne() throws {
        folder.makeFolder("tls")
        let names = ["lb.json", "tls/key", "tls/certificate"]
        for name in names { folder.write("one", to: name) }
        let watch = try ConfigurationWatch(names.map { WatchedFile(path: folder.file($0)) }, nowNs: 0)
        #expect(!settles(watch))
        for name in names {
            folder.write("two", to: name)
            #expect(settles(watch))
            #expect(!settles(watch))
        }
        folder.write("three", to: "tls/key")
        folder.write("three", to: "tls/certificate")
        #expect(settles(watch))
        #expect(!settles(watch), "both are one change")
    }

    @Test func otherFilesMayBeFollowedLater() throws {
        for name in ["old", "new"] {
            folder.makeFolder(name)
            folder.write("one", to: "\(name)/file")
        }
        let watch = try ConfigurationWatch([WatchedFile(path: folder.file("old/file"))], nowNs: 0)
        #expect(!settles(watch))
        let file = WatchedFile(path: folder.file("new/file"))
        folder.write("two", to: "new/file")
        watch.follow([file], nowNs: 0)
        #expect(settles(watch), "it changed between the reading and the watch")
        folder.write("two", to: "old/file")
        #expect(!settles(watch))
        folder.write("three", to: "new/file")
        watch.follow([WatchedFile(path: folder.file("new/file"))], nowNs: 0)
        #expect(!settles(watch), "somebody has read it")
    }

    @Test func aFolderThatIsNotThereCannotBeWatched() {
        #expect(throws: Errno(ENOENT)) {
            try ConfigurationWatch([WatchedFile(path: "/nowhere/lb.json", text: "")], nowNs: 0)
        }
    }
}
